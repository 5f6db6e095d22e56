package cadvisor

import "github.com/userns-shim/userns-shim/pkg/stats"

func ofInterfaces(get func(stats.Interface) uint64) func(*subject) []value {
	return func(s *subject) []value {
		var out []value
		for _, i := range s.interfaces {
			out = append(out, value{number: get(i), labels: []string{i.Name}})
		}
		return out
	}
}

func networkMetrics() []metric {
	return []metric{
		counter("container_network_receive_bytes_total", "Bytes received.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.RxBytes }), "interface"),
		counter("container_network_receive_packets_total", "Packets received.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.RxPackets }), "interface"),
		counter("container_network_receive_packets_dropped_total", "Packets dropped on receipt.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.RxDropped }), "interface"),
		counter("container_network_receive_errors_total", "Errors on receipt.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.RxErrors }), "interface"),
		counter("container_network_transmit_bytes_total", "Bytes transmitted.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.TxBytes }), "interface"),
		counter("container_network_transmit_packets_total", "Packets transmitted.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.TxPackets }), "interface"),
		counter("container_network_transmit_packets_dropped_total", "Packets dropped on transmission.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.TxDropped }), "interface"),
		counter("container_network_transmit_errors_total", "Errors on transmission.",
			ofInterfaces(func(i stats.Interface) uint64 { return i.TxErrors }), "interface"),
	}
}
