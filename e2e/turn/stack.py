"""One end of a call of aiortc, told what to do as stack.mjs is."""

import asyncio
import json
import sys

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription

MESSAGES = 50


def say(what):
    print(json.dumps(what), flush=True)


def message(i):
    return f"{i} {'x' * 1000}"


async def described(pc, description):
    """This version cannot be told to use relayed candidates alone: the others are taken away before any check is made, and the other end is
    not told of them. Their sockets stay open, unused: a connection takes the end of one for its own."""
    await pc.setLocalDescription(description)
    ice = pc.sctp.transport.transport._connection
    ice._protocols = [p for p in ice._protocols if p.local_candidate.type == "relay"]
    lines = pc.localDescription.sdp.split("\r\n")
    return "\r\n".join(l for l in lines if not l.startswith("a=candidate:") or " typ relay" in l)


async def main():
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    pc = None
    while line := await lines.readline():
        told = json.loads(line)
        if pc is None:
            servers = [RTCIceServer(**s) for s in told["servers"]]
            pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        if told["do"] == "offer":
            channel = pc.createDataChannel("test")
            state = {"i": 0}

            @channel.on("open")
            def opened():
                channel.send(message(0))

            @channel.on("message")
            def back(text):
                i = state["i"]
                if text != message(i):
                    raise SystemExit(f"got {text[:20]} for message {i}")
                state["i"] = i = i + 1
                if i == MESSAGES:
                    say({"echoed": i})
                else:
                    channel.send(message(i))

            say({"sdp": await described(pc, await pc.createOffer())})
        elif told["do"] == "answer":

            @pc.on("datachannel")
            def found(channel):
                channel.on("message", channel.send)

            await pc.setRemoteDescription(RTCSessionDescription(told["sdp"], "offer"))
            say({"sdp": await described(pc, await pc.createAnswer())})
        elif told["do"] == "accept":
            await pc.setRemoteDescription(RTCSessionDescription(told["sdp"], "answer"))
        elif told["do"] == "pair":
            nominated = pc.sctp.transport.transport._connection._nominated[1]
            say({"local": nominated.local_candidate.type, "remote": nominated.remote_candidate.type})
        else:
            await pc.close()
            return


asyncio.run(main())
