package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

// serve accepts TCP connections on an address for ever. "echo" sends back what comes, to its end. "greet"
// sends a greeting, ends its own direction, and prints how much came after that.
func serve(args []string) (result, error) {
	if len(args) != 2 || args[1] != "echo" && args[1] != "greet" {
		return result{}, usageError("takes an address, and echo or greet")
	}
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return result{}, err
	}
	fmt.Fprintln(os.Stderr, "listening")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return result{}, err
		}
		go handle(conn.(*net.TCPConn), args[1])
	}
}

func handle(conn *net.TCPConn, mode string) {
	defer conn.Close()
	if mode == "echo" {
		_, _ = io.Copy(conn, conn)
		_ = conn.CloseWrite()
		return
	}
	_, _ = io.WriteString(conn, "hello")
	_ = conn.CloseWrite()
	n, _ := io.Copy(io.Discard, conn)
	fmt.Fprintln(os.Stderr, "got", n)
}
