"""A wire between a contender and a store: a time that each request takes to get there, or so many bytes a second for all."""

import asyncio
import contextlib
import threading


class Wire:
    """Forwards connections to `endpoint`. `latency_s` passes before the bytes of a request go on, once for each; `bytes_per_s` is
    what all connections together may send."""

    def __init__(self, endpoint, latency_s=0.0, bytes_per_s=None):
        self.host, port = endpoint.removeprefix("http://").split(":")
        self.port, self.latency_s, self.bytes_per_s = int(port), latency_s, bytes_per_s
        self.requests = 0

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.free_at = 0.0
        server = self.loop.run_until_complete(asyncio.start_server(self.connection, "127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def connection(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            below, above = await asyncio.open_connection(self.host, self.port)
            await asyncio.gather(self.up(reader, above), self.down(below, writer))
        writer.close()

    async def up(self, reader, above):
        while data := await reader.read(4096 if self.bytes_per_s else 1 << 16):
            if data.startswith((b"GET ", b"PUT ", b"HEAD ", b"POST ")):
                self.requests += 1
                await asyncio.sleep(self.latency_s)
            if self.bytes_per_s:
                await self.turn(len(data))
            above.write(data)
            await above.drain()
        above.close()

    async def down(self, below, writer):
        while data := await below.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def turn(self, size):
        """Waits until all that was sent before is through, and this too."""
        now = self.loop.time()
        self.free_at = max(self.free_at, now) + size / self.bytes_per_s
        await asyncio.sleep(self.free_at - now)
