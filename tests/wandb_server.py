"""A small W&B server on loopback: it makes a sweep, hands out its trials, and keeps what their runs send."""

import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

ENTITY, PROJECT, SWEEP = "team", "maps", "sweep1"


@dataclass
class Run:
    """What the server has of a run."""

    made: list[dict[str, Any]] = field(default_factory=list)
    """The variables of each request that made or changed it."""
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The values of its config, as they were sent last."""
        sent = [json.loads(variables["config"]) for variables in self.made if variables.get("config")]
        return {key: item["value"] for key, item in sent[-1].items()}

    def logged(self, metric: str) -> list[Any]:
        """The values of a metric, one for each row that has it."""
        return [row[metric] for row in self.history if metric in row]


class WandbServer(http.server.ThreadingHTTPServer):
    """Answers what `wandb sweep`, `wandb agent` and runs ask for; artifacts and files are refused.

    `trials` are the parameters of the sweep's runs by their ids. They are handed out one after the other, and when the
    last has ended the agent is told to leave. With `stops` each run is told to end once it has sent a return.
    """

    daemon_threads = True

    def __init__(self, trials: dict[str, dict[str, Any]], stops: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.trials, self.stops, self.waiting = trials, stops, list(trials.items())
        self.runs = {run_id: Run() for run_id in trials}
        self.sweep: dict[str, Any] = {}
        """The variables of the request that made the sweep."""
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

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The data that a GraphQL operation gets; None refuses it."""
        project = {"id": "1", "name": PROJECT, "entity": {"id": "1", "name": ENTITY}}
        match operation:
            case "Viewer":
                user = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
                return {"viewer": user}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "UpsertSweep":
                self.sweep = variables
                return {"upsertSweep": {"sweep": {"name": SWEEP, "project": project}, "configValidationWarnings": []}}
            case "SweepWithRuns":
                return {"project": {"sweep": {"name": SWEEP, "config": self.sweep["config"], "runs": {"edges": []}}}}
            case "CreateAgent":
                return {"createAgent": {"agent": {"id": "agent1"}}}
            case "Heartbeat":
                commands = self._commands(json.loads(variables["runState"]))
                return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}
            case "RunResumeStatus":
                return {"model": {"entity": {"name": ENTITY}, "bucket": self._waiting_run(variables["name"])}}
            case "UpsertBucket":
                run_id = variables["name"]
                self.runs.setdefault(run_id, Run()).made.append(variables)
                bucket = {"id": "1", "name": run_id, "displayName": variables["displayName"], "project": project}
                return {"upsertBucket": {"bucket": bucket | {"sweepName": SWEEP, "config": "{}"}, "inserted": True}}
        return None

    def receive(self, run_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Keeps what a run streams, and says whether it is to end."""
        run = self.runs.setdefault(run_id, Run())
        lines = sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        run.history += [json.loads(line) for line in lines]
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]
        return {"stopped": self._is_stopped(run_id)}

    def _commands(self, running: dict[str, bool]) -> list[dict[str, Any]]:
        """What an agent is to do whose runs are these."""
        if running:
            return [{"type": "stop", "run_id": run_id} for run_id in running if self._is_stopped(run_id)]
        if not self.waiting:
            return [{"type": "exit"}]
        run_id, parameters = self.waiting.pop(0)
        args = {key: {"value": value} for key, value in parameters.items()}
        return [{"type": "run", "run_id": run_id, "program": "train.py", "args": args}]

    def _waiting_run(self, run_id: str) -> dict[str, Any] | None:
        """What the server has of a run that it handed out: its parameters, and no sign that it was begun."""
        if run_id not in self.trials:
            return None
        config = {key: {"value": value} for key, value in self.trials[run_id].items()}
        counts = {"historyLineCount": 0, "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": "[]", "eventsTail": "[]", "summaryMetrics": "{}"}
        return {
            "name": run_id,
            "config": json.dumps(config),
            "wandbConfig": "{}",
            "displayName": run_id,
            **counts,
            **tails,
        }

    def _is_stopped(self, run_id: str) -> bool:
        return self.stops and bool(self.runs[run_id].logged("evaluation/return"))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WandbServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 404, {}
        with self.server.lock:
            if self.path == "/graphql":
                sent = json.loads(body)
                operation = re.search(r"(?:query|mutation) (\w+)", sent["query"])
                data = operation and self.server.answer(operation[1], sent.get("variables") or {})
                status, answer = 200, {"data": data} if data else {"errors": [{"message": "not known here"}]}
            elif self.path.endswith("/file_stream"):
                status, answer = 200, self.server.receive(self.path.split("/")[-2], json.loads(body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output clean."""
