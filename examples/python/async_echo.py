"""An echo server and its clients in one event loop, over the loopback address.

The allocator serves coroutines, futures, handles and byte strings, most of which live from one turn
of the loop to the next.
"""

import asyncio

CLIENTS = 25
MESSAGES = 900


async def echo(reader, writer):
    while True:
        line = await reader.readline()
        if not line:
            break
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def client(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    total = 0
    for message in range(MESSAGES):
        writer.write(b"client %d says %d\n" % (number, message))
        await writer.drain()
        answer = await reader.readline()
        total += sum(answer) % 251
    writer.close()
    return total


async def converse():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    totals = await asyncio.gather(*[client(port, number) for number in range(CLIENTS)])
    server.close()
    return sum(totals)


def main():
    print("echoed", CLIENTS * MESSAGES, "checksum", asyncio.run(converse()))


if __name__ == "__main__":
    main()
