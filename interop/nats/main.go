// Command nats runs a NATS server with JetStream as a library.
//
// The tests of the framework's NATS transport start it. It listens on the address given first and keeps its streams in the
// directory given second. It ends when its standard input is closed, so that it never outlives the test that started it.
package main

import (
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if len(os.Args) != 3 {
		slog.Error("usage: nats ADDRESS DIRECTORY")
		os.Exit(2)
	}
	host, text, err := net.SplitHostPort(os.Args[1])
	if err != nil {
		slog.Error("address not valid", "error", err)
		os.Exit(2)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		slog.Error("port not valid", "error", err)
		os.Exit(2)
	}
	nats, err := server.NewServer(&server.Options{
		Host:       host,
		Port:       port,
		JetStream:  true,
		StoreDir:   os.Args[2],
		NoSigs:     true,
		SyncAlways: true,
	})
	if err != nil {
		slog.Error("server not started", "error", err)
		os.Exit(1)
	}
	nats.ConfigureLogger()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		nats.Shutdown()
	}()
	nats.Start()
	if !nats.ReadyForConnections(30 * time.Second) {
		slog.Error("server not ready", "address", os.Args[1])
		os.Exit(1)
	}
	nats.WaitForShutdown()
}
