"""A small W&B server on loopback: it makes a sweep, hands out its trials, and keeps what their runs send."""

import gzip
import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import Any

ENTITY, PROJECT, SWEEP = "team", "scout", "sweep1"


@dataclass
class Run:
    """What the server has of a run."""

    upserts: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The values of its config, as they were sent last."""
        sent = [json.loads(upsert["config"]) for upsert in self.upserts if upsert.get("config")]
        return {key: item["value"] for key, item in sent[-1].items()}

    def logged(self, metric: str) -> list[Any]:
        """The values of a metric, one a row that has it."""
        return [row[metric] for row in self.history if metric in row]


class WandbServer(http.server.ThreadingHTTPServer):
    """Answers what `wandb sweep`, `wandb agent` and online runs ask for; all else is refused, and noted.

    `trials` are the parameters of each run of the sweep by the run's id. They are handed out one after the other, and
    the agent is told to leave when the last has ended. A run of `stopped` is told to end as soon as it has sent a return.
    """

    daemon_threads = True

    def __init__(self, trials: dict[str, dict[str, Any]], stopped: frozenset[str] = frozenset()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.waiting, self.stopped = list(trials.items()), stopped
        self.runs: dict[str, Run] = {}
        self.sweep: dict[str, Any] = {}
        """The variables of the request that made the sweep."""
        self.refused: list[str] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that lead W&B here."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_address[1]}", "WANDB_API_KEY": "0" * 40}

    def close(self) -> None:
        """Ends it."""
        self.shutdown()
        self.server_close()

    def run(self, run_id: str) -> Run:
        """The run of that id, made when it is first heard of."""
        return self.runs.setdefault(run_id, Run())

    def wants_end(self, run_id: str) -> bool:
        """Whether a run is to be stopped now."""
        return run_id in self.stopped and bool(self.run(run_id).logged("evaluation/return"))

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The data of a GraphQL request; None for one that is not known here."""
        project = {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}}
        match next((name for name in _ANSWERED if f"{name}(" in query or f"{name} {{" in query), None):
            case "viewer":
                user = {"id": "1", "entity": ENTITY, "username": "me", "flags": "{}", "teams": {"edges": []}}
                return {"viewer": user}
            case "serverInfo":
                return {"serverInfo": {"features": []}}
            case "upsertSweep":
                self.sweep = variables
                return {"upsertSweep": {"sweep": {"name": SWEEP, "project": project}, "configValidationWarnings": []}}
            case "sweep":
                return {"project": {"sweep": {"name": SWEEP, "config": self.sweep["config"], "runs": {"edges": []}}}}
            case "createAgent":
                return {"createAgent": {"agent": {"id": "agent1"}}}
            case "agentHeartbeat":
                commands = self.commands(json.loads(variables["runState"]))
                return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}
            case "bucket":  # what a run that may be there already holds
                return {"model": {"entity": {"name": ENTITY}, "bucket": None}}
            case "upsertBucket":
                self.run(variables["name"]).upserts.append(variables)
                bucket = {"id": "1", "name": variables["name"], "sweepName": SWEEP, "project": project, "config": "{}"}
                bucket |= {"displayName": variables["displayName"], "historyLineCount": 0}
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        return None

    def commands(self, running: dict[str, bool]) -> list[dict[str, Any]]:
        """What an agent is to do whose runs are these."""
        if running:
            return [{"type": "stop", "run_id": run_id} for run_id in running if self.wants_end(run_id)]
        if not self.waiting:
            return [{"type": "exit"}]
        run_id, parameters = self.waiting.pop(0)
        args = {key: {"value": value} for key, value in parameters.items()}
        return [{"type": "run", "run_id": run_id, "program": "train.py", "args": args}]

    def receive(self, run_id: str, sent: dict[str, Any]) -> None:
        """Keeps what a run streams."""
        run = self.run(run_id)
        lines = sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        run.history += [json.loads(line) for line in lines]
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]


_ANSWERED = (
    *("viewer", "serverInfo", "upsertSweep", "sweep", "createAgent", "agentHeartbeat", "upsertBucket", "bucket"),
)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WandbServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        print("PATH", self.path, dict(self.headers), body[:300]) if not self.path.endswith(("graphql","file_stream")) else None
        sent = json.loads(body)
        with self.server.lock:
            if self.path.endswith("/file_stream"):
                run_id = self.path.split("/")[-2]
                self.server.receive(run_id, sent)
                answer: dict[str, Any] = {"stopped": self.server.wants_end(run_id)}
            else:
                data = self.server.answer(sent["query"], sent.get("variables") or {})
                answer = {"data": data} if data is not None else {"errors": [{"message": "not known here"}]}
                if data is None:
                    self.server.refused.append(sent["query"])
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output clean."""
