"""proxy.py PORT NAME ADDRESS: an HTTP proxy on this machine that knows one name and answers CONNECT; says what it is asked."""
import socket
import sys
import threading

PORT, NAME, ADDRESS = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def pump(source, target):
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            return
        head += byte
    first, *lines = head.decode().split("\r\n")
    method, place, _ = first.split(" ")
    headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in lines if line)
    print(method, place, headers.get("proxy-authorization", ""), flush=True)
    host, port = place.rsplit(":", 1)
    if method != "CONNECT" or host != NAME:
        client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        return
    upstream = socket.create_connection((ADDRESS, int(port)))
    client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
    threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
    pump(client, upstream)


listener = socket.create_server(("127.0.0.1", PORT))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
