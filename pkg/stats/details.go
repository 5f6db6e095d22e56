package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Details are what only metrics show, and cost more to read.
type Details struct {
	Limits     Limits
	Disks      []Disk
	Files      Files
	Filesystem *Filesystem // of the writable layer; nil when that was not read yet
}

// Disk is the traffic of a block device, with its name: "/dev/vda".
type Disk struct {
	DeviceIO
	Name string
}

// Details adds them to what a container that runs uses.
func (c *Collector) Details(ctx context.Context, ctr Container, usage ContainerUsage) (Details, error) {
	out := Details{Limits: c.reader.Limits(ctr.Cgroup), Disks: disks(usage.Reading.IO.Devices)}
	pids, err := c.reader.PIDs(ctr.Cgroup)
	if err != nil {
		return Details{}, err
	}
	out.Files = readFiles(ctx, ctr.PID, pids)
	if usage.Layer != nil {
		filesystem, err := readFilesystem(usage.Layer.Mountpoint)
		if err != nil {
			return Details{}, err
		}
		out.Filesystem = &filesystem
	}
	return out, nil
}

// PodDetails are those of the pod's own cgroup.
func (c *Collector) PodDetails(pod Pod, usage PodUsage) Details {
	return Details{Limits: c.reader.Limits(pod.Cgroup), Disks: disks(usage.Reading.IO.Devices)}
}

func disks(devices []DeviceIO) []Disk {
	out := make([]Disk, len(devices))
	for i, d := range devices {
		out[i] = Disk{DeviceIO: d, Name: deviceName(d.Major, d.Minor)}
	}
	return out
}

// deviceName asks sysfs, where a slash in a name is an exclamation mark. A device that is gone
// has its numbers for a name, so that two never share one.
func deviceName(major, minor uint64) string {
	numbers := fmt.Sprintf("%d:%d", major, minor)
	target, err := os.Readlink("/sys/dev/block/" + numbers)
	if err != nil {
		return numbers
	}
	return "/dev/" + strings.ReplaceAll(filepath.Base(target), "!", "/")
}
