"""Requests per second of a JSON API: one signed request again and again over connections kept alive if the server does; run by the case `api`.

    ask.py URL SERVICE TARGET BODY --version 1.0 --connections 8 --seconds 5

The request is signed once with the keys of the environment and sent as the same bytes each time, so that the client costs
little and the same whatever it asks. Prints {"requests", "seconds", "p50_ms", "p99_ms", "bytes"} as JSON. An answer that is
not 200 ends it.
"""

import argparse
import json
import math
import os
import socket
import threading
import time
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("service")
    parser.add_argument("target")
    parser.add_argument("body")
    parser.add_argument("--version", default="1.0")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args()
    where = urllib.parse.urlparse(given.url)
    request = signed(given, where.netloc)
    results, stop = [], time.perf_counter() + given.seconds
    threads = [threading.Thread(target=ask, args=((where.hostname, where.port), request, stop, results))
               for _ in range(given.connections)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(results) < given.connections:
        raise SystemExit("a connection failed")
    times = sorted(value for _, one in results for value in one)
    print(json.dumps({
        "requests": len(times), "seconds": time.perf_counter() - began, "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[math.ceil(len(times) * 0.99) - 1] * 1000, "bytes": results[0][0],
    }))


def signed(given, host):
    headers = {"Content-Type": f"application/x-amz-json-{given.version}", "X-Amz-Target": given.target, "Host": host}
    request = AWSRequest("POST", given.url + "/", headers, given.body)
    keys = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    SigV4Auth(keys, given.service, os.environ["AWS_REGION"]).add_auth(request)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    lines.append(f"Content-Length: {len(given.body.encode())}")
    return ("POST / HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n" + given.body).encode()


def ask(address, request, stop, results):
    connection, times, size = None, [], 0
    while time.perf_counter() < stop:
        began = time.perf_counter()
        if connection is None:
            connection = socket.create_connection(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        status, body, closes = answer(connection)
        if closes:
            connection = connection.close()
        if status != 200:
            raise SystemExit(f"{status}: {body[:300]!r}")
        times.append(time.perf_counter() - began)
        size = len(body)
    results.append((size, times))


def answer(connection):
    held = b""
    while b"\r\n\r\n" not in held:
        more = connection.recv(65536)
        if not more:
            raise SystemExit("the server closed the connection")
        held += more
    head, body = held.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":", 1)[1]) for line in lines if line.startswith("content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(lines[0].split()[1]), body, "connection: close" in lines


if __name__ == "__main__":
    main()
