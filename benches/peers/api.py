"""Reads of the API beside moto's, in turns: prints a JSON line for each contender, operation and turn; run by the case `api`.

Ours: DescribeInferenceScheduler and a page of 50 of ListInferenceExecutions, out of 1,000. moto has no Lookout for Equipment;
its Step Functions has the comparable pair: DescribeStateMachine and a page of 50 of ListExecutions, out of 1,000. Both are
asked by `ask.py`. moto checks no signature; lookoutd does.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import boto3
from fleet import Fleet, ROLE

HERE = pathlib.Path(__file__).resolve().parent
EXECUTIONS = 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--moto", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--directory", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.schedulers, given.speed = 1, 1e-6
    fleet = Fleet(given)
    moto = subprocess.Popen([given.moto, "-p", str(given.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ours, theirs = prepare(fleet), prepare_moto(given.port)
        for _ in range(given.rounds):
            for connections in [1, 16]:
                for (name, pid, cases) in [("moto", moto.pid, theirs), ("lookoutd", fleet.process.pid, ours)]:
                    for operation, arguments in cases.items():
                        before = cpu(pid)
                        told = ask(arguments, connections)
                        spent = (cpu(pid) - before) / told["requests"] * 1e6
                        print(json.dumps({"name": name, "operation": operation, "connections": connections,
                                          "cpu_us": spent, **told}), flush=True)
    finally:
        fleet.stop()
        moto.kill()
        moto.wait()


def prepare(fleet):
    fleet.set_up()
    fleet.stop()
    subprocess.run([sys.executable, "-c", INSERT, str(fleet.directory / "service/state.db"), str(EXECUTIONS)], check=True)
    # A clock that stands still runs no execution beside the requests.
    fleet.serve(1e-6)
    secrets = fleet.api._request_signer._credentials
    os.environ.update(AWS_ACCESS_KEY_ID=secrets.access_key, AWS_SECRET_ACCESS_KEY=secrets.secret_key, AWS_REGION="us-east-1")
    target = "AWSLookoutEquipmentFrontendService"
    request = lambda operation, **body: [fleet.url, "lookoutequipment", f"{target}.{operation}", json.dumps(body)]
    return {
        "describe": request("DescribeInferenceScheduler", InferenceSchedulerName="s0"),
        "list, page of 50": request("ListInferenceExecutions", InferenceSchedulerName="s0", MaxResults=50),
    }


INSERT = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute('''
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                           model_version_arn, result_bucket, result_key, finished_us, rows, anomalous)
    SELECT s.uuid, i * 300000000, (i - 1) * 300000000, i * 300000000, 'SUCCESS', s.input, s.output, 1, v.arn, 'plant',
           'out-0/results.jsonl', i * 300000000, 5, 0 FROM n, scheduler s, model m, model_version v
    WHERE m.name = s.model_name AND v.model_uuid = m.uuid''', [int(sys.argv[2])])
database.commit()
"""


def prepare_moto(port):
    url = f"http://127.0.0.1:{port}"
    api = boto3.client("stepfunctions", endpoint_url=url, region_name="us-east-1")
    definition = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Pass", "End": True}}})
    for _ in range(100):
        try:
            machine = api.create_state_machine(name="s0", definition=definition, roleArn=ROLE)["stateMachineArn"]
            break
        except Exception:
            time.sleep(0.2)
    for n in range(EXECUTIONS):
        api.start_execution(stateMachineArn=machine, name=f"e{n}")
    request = lambda operation, **body: [url, "states", f"AWSStepFunctions.{operation}", json.dumps(body)]
    return {
        "describe": request("DescribeStateMachine", stateMachineArn=machine),
        "list, page of 50": request("ListExecutions", stateMachineArn=machine, maxResults=50),
    }


def ask(arguments, connections):
    command = [sys.executable, str(HERE / "ask.py"), *arguments, "--connections", str(connections)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def cpu(pid):
    ticks = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
