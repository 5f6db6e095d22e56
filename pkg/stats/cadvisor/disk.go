package cadvisor

import (
	"strconv"

	"github.com/userns-shim/userns-shim/pkg/stats"
)

// ofLayer makes a metric of the writable layer and its filesystem, once the layer was read.
func ofLayer(get func(stats.Layer, stats.Filesystem) uint64) func(*subject) []value {
	return func(s *subject) []value {
		if s.layer == nil || s.details.Filesystem == nil {
			return nil
		}
		fs := *s.details.Filesystem
		return []value{{number: get(*s.layer, fs), labels: []string{fs.Device}, at: s.layer.At}}
	}
}

// ofDisks makes a metric with a value for each block device.
func ofDisks(get func(stats.Disk) uint64) func(*subject) []value {
	return func(s *subject) []value {
		var out []value
		for _, d := range s.details.Disks {
			out = append(out, value{number: get(d), labels: []string{d.Name}})
		}
		return out
	}
}

func diskMetrics() []metric {
	all := []metric{
		gauge("container_fs_inodes_free", "Free inodes of the filesystem that holds the writable layer.",
			ofLayer(func(_ stats.Layer, fs stats.Filesystem) uint64 { return fs.InodesFree }), "device"),
		gauge("container_fs_inodes_total", "Inodes of the filesystem that holds the writable layer.",
			ofLayer(func(_ stats.Layer, fs stats.Filesystem) uint64 { return fs.Inodes }), "device"),
		gauge("container_fs_limit_bytes", "Size of the filesystem that holds the writable layer, in bytes.",
			ofLayer(func(_ stats.Layer, fs stats.Filesystem) uint64 { return fs.Bytes }), "device"),
		gauge("container_fs_usage_bytes", "Size of the writable layer, in bytes.",
			ofLayer(func(l stats.Layer, _ stats.Filesystem) uint64 { return l.Bytes }), "device"),
		counter("container_fs_reads_bytes_total", "Bytes read from the device.",
			ofDisks(func(d stats.Disk) uint64 { return d.ReadBytes }), "device"),
		counter("container_fs_reads_total", "Reads that the device completed.",
			ofDisks(func(d stats.Disk) uint64 { return d.Reads }), "device"),
		counter("container_fs_writes_bytes_total", "Bytes written to the device.",
			ofDisks(func(d stats.Disk) uint64 { return d.WriteBytes }), "device"),
		counter("container_fs_writes_total", "Writes that the device completed.",
			ofDisks(func(d stats.Disk) uint64 { return d.Writes }), "device"),
		counter("container_blkio_device_usage_total", "Bytes moved to and from the device.",
			deviceUsage, "device", "major", "minor", "operation"),
	}
	return append(all, pressureMetrics("io", "a device", func(r *stats.Reading) *stats.Pressure { return r.IO.Pressure })...)
}

func deviceUsage(s *subject) []value {
	var out []value
	for _, d := range s.details.Disks {
		major, minor := strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)
		out = append(out,
			value{number: d.ReadBytes, labels: []string{d.Name, major, minor, "Read"}},
			value{number: d.WriteBytes, labels: []string{d.Name, major, minor, "Write"}})
	}
	return out
}
