"""A broker that gives each client back what it publishes, and nothing else.

    fake_broker.py PORT [--refuse N] [--daemon] [--log FILE]

`--refuse N` denies the first N subscriptions, as brokers do that listen before they serve. `--daemon` leaves its first process and its session.
"""

import argparse
import os
import signal
import socketserver

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--refuse", type=int, default=0)
parser.add_argument("--daemon", action="store_true")
parser.add_argument("--log")
options = parser.parse_args()
refusals = [options.refuse]


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.rfile.read(2):
            body = self.rfile.read(head[1])
            kind = head[0] >> 4
            if kind == 1:
                self.wfile.write(b"\x20\x02\x00\x00")
            elif kind == 8:
                denied, refusals[0] = refusals[0] > 0, refusals[0] - 1
                self.wfile.write(b"\x90\x03" + body[:2] + (b"\x80" if denied else b"\x00"))
            elif kind == 3:
                self.wfile.write(head + body)
            else:
                return


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", options.port), Client) as server:
    if options.daemon and os.fork():
        # The caller waits for the child's end by itself.
        signal.pause()
    elif options.daemon:
        os.setsid()
        if os.fork():
            os._exit(0)
    if options.log:
        with open(options.log, "a") as log:
            log.write(f"{os.getpid()}\n")
    server.serve_forever()
