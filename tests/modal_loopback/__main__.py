"""The server of the loopback; `keeper` runs it: `python -m tests.modal_loopback.keeper --state DIR --port-file FILE`.

FILE gets, when everything answers, one line of JSON: `{"grpc": PORT, "http": PORT, "pid": PID, "isolated": BOOL}`. What it
knows lies in DIR, so that the next server goes on where one was killed. The http port serves blocks of volumes, and tests:
`POST /faults` (a list of rules), `GET /calls`, `POST /vanish/NAME`, `POST /cut`, `POST /machines/on|off`,
`POST /egress/PORT`, `POST /crowd/OWNER/COUNT`, `POST /expire` (all snapshots), `POST /secret/NAME` (an object of keys), `POST /rates` (an object of rates).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from aiohttp import web
from grpclib.server import Server
from modal_proto.api_grpc import ModalClientBase
from modal_proto.task_command_router_grpc import TaskCommandRouterBase

from parhelia_mcp import files
from tests.modal_loopback import kept
from tests.modal_loopback.boxes import Box, Plain
from tests.modal_loopback.faults import Faults
from tests.modal_loopback.isolated import Isolated, works
from tests.modal_loopback.objects import Objects
from tests.modal_loopback.router import Router
from tests.modal_loopback.sandboxes import Sandboxes
from tests.modal_loopback.service import Calls, build
from tests.modal_loopback.world import World, new_id


class Doors:
    """The http side: blocks of volumes for the SDK, and the levers for tests."""

    def __init__(self, world: World, sandboxes: Sandboxes, faults: Faults, calls: Calls) -> None:
        self.world, self.sandboxes, self.faults, self.calls = world, sandboxes, faults, calls

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/block/{path}/{start}/{end}", self.block),
                web.post("/faults", self.set_faults),
                web.get("/calls", self.get_calls),
                web.post("/vanish/{name}", self.vanish),
                web.post("/cut", self.cut),
                web.post("/machines/{state}", self.machines),
                web.post("/secret/{name}", self.secret),
                web.post("/egress/{port}", self.egress),
                web.post("/rates", self.rates),
                web.post("/crowd/{owner}/{count}", self.crowd),
                web.post("/expire", self.expire),
            ]
        )
        return app

    async def block(self, request: web.Request) -> web.Response:
        path = self.world.state / os.fsdecode(bytes.fromhex(request.match_info["path"]))
        start, end = int(request.match_info["start"]), int(request.match_info["end"])
        return web.Response(body=files.read_at(path, start, end - start))

    async def set_faults(self, request: web.Request) -> web.Response:
        self.faults.replace(await request.json())
        return web.Response()

    async def get_calls(self, _request: web.Request) -> web.Response:
        living = [one.name for one in self.world.sandboxes.values() if one.result is None]
        sandboxes = [
            {
                "id": one.id,
                "name": one.name,
                "live": one.result is None,
                "tags": one.tags,
                "image": one.definition.image_id,
                "regions": list(one.definition.scheduler_placement.regions),
            }
            for one in self.world.sandboxes.values()
        ]
        missing = sorted(self.calls.unimplemented)
        return web.json_response(
            {
                "seen": self.calls.seen,
                "unimplemented": missing,
                "living": living,
                "sandboxes": sandboxes,
                "snapshots": self.world.snapshots,
            }
        )

    async def cut(self, request: web.Request) -> web.Response:
        self.sandboxes.cut()
        return web.Response()

    async def vanish(self, request: web.Request) -> web.Response:
        await self.sandboxes.vanish(request.match_info["name"])
        return web.Response()

    async def machines(self, request: web.Request) -> web.Response:
        if request.match_info["state"] == "on":
            self.world.machines.set()
        else:
            self.world.machines.clear()
        kept.save(self.world)
        return web.Response()

    async def secret(self, request: web.Request) -> web.Response:
        secret_id = self.world.secret_names[request.match_info["name"]] = new_id("st")
        self.world.secrets[secret_id] = await request.json()
        kept.save(self.world)
        return web.Response()

    async def rates(self, request: web.Request) -> web.Response:
        self.world.rates = await request.json()
        kept.save(self.world)
        return web.Response()

    async def egress(self, request: web.Request) -> web.Response:
        self.world.egress.add(int(request.match_info["port"]))
        kept.save(self.world)
        return web.Response()

    async def crowd(self, request: web.Request) -> web.Response:
        self.sandboxes.crowd(request.match_info["owner"], int(request.match_info["count"]))
        return web.Response()

    async def expire(self, _request: web.Request) -> web.Response:
        self.world.snapshots = dict.fromkeys(self.world.snapshots, 0.0)
        kept.save(self.world)
        return web.Response()


async def serve(state: Path, ports: list[int], port_file: Path, box: type[Box]) -> None:
    faults, calls = Faults(state / "faults.json"), Calls()
    world = World(state, url="")
    sandboxes = Sandboxes(world, box)
    kept.load(world)
    control = build(ModalClientBase, (Objects(world), sandboxes), faults, calls)
    router = build(TaskCommandRouterBase, (Router(world),), faults, calls)
    server = Server([control, router])
    grpc, http = ports
    world.url, world.blob_url = f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}"
    sandboxes.find_again()
    await server.start("127.0.0.1", grpc)
    runner = web.AppRunner(Doors(world, sandboxes, faults, calls).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", http).start()
    files.replace_json(port_file, {"grpc": grpc, "http": http, "pid": os.getpid(), "isolated": box is Isolated})
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await sandboxes.close()
    server.close()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.modal_loopback")
    parser.add_argument("--state", type=Path, required=True, help="where volumes and sandboxes lie")
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--ports", type=int, nargs=2, required=True, metavar=("GRPC", "HTTP"))
    parser.add_argument("--plain", action="store_true", help="no namespaces, even where they work")
    options = parser.parse_args()
    state = options.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    box = Plain if options.plain or not works(state) else Isolated
    asyncio.run(serve(state, options.ports, options.port_file, box))


if __name__ == "__main__":
    main()
