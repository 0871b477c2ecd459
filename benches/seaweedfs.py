"""SeaweedFS, from PyPI: an S3 server on loopback, killed at the end."""

import json
import subprocess

from harness import ENVIRONMENT, KEY, PYTHON, SECRET, VENV, free_ports, wait_for


class SeaweedFs:
    bucket = "bench"

    def __init__(self, directory, fsync=False):
        self.directory, self.fsync = directory, fsync

    def __enter__(self):
        (self.directory / "data").mkdir(parents=True)
        identity = {"name": "bench", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = free_ports(8)
        flags = {"dir": self.directory / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": self.directory / "s3.json",
                 "master.port": ports[0], "master.port.grpc": ports[1], "volume.port": ports[2], "volume.port.grpc": ports[3],
                 "filer.port": ports[4], "filer.port.grpc": ports[5], "s3.port": ports[6], "s3.port.grpc": ports[7],
                 "s3.port.iceberg": 0, "s3.port.lance": 0, "volume.max": 500, "master.volumeSizeLimitMB": 16,
                 "master.electionTimeout": "1s", "master.telemetry": "false"}
        log = open(self.directory / "log", "w")
        self.server = subprocess.Popen([str(VENV / "bin/weed"), "server", "-filer", "-s3",
                                        *(f"-{key}={value}" for key, value in flags.items())], stdout=log, stderr=log)
        self.endpoint = f"http://127.0.0.1:{ports[6]}"
        try:
            wait_for(f"{self.endpoint}/healthz")
            wait_for(f"http://127.0.0.1:{ports[0]}/dir/assign")
            if self.fsync:
                self.shell(ports, "fs.configure -locationPrefix=/buckets/ -fsync=true -apply")
            self.call("create_bucket", {"Bucket": self.bucket})
            # The first object of a bucket makes the server grow volumes; no contender should pay for that.
            self.call("put_object", {"Bucket": self.bucket, "Key": "warm", "Body": "warm"})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.wait()

    def call(self, operation, parameters):
        script = ("import boto3, json, sys; client = boto3.client('s3', endpoint_url=sys.argv[1]);"
                  "print(json.dumps(getattr(client, sys.argv[2])(**json.loads(sys.argv[3])), default=str))")
        return json.loads(subprocess.run([PYTHON, "-c", script, self.endpoint, operation, json.dumps(parameters)], check=True,
                                         env=ENVIRONMENT, stdout=subprocess.PIPE).stdout)

    def shell(self, ports, command):
        addresses = [f"-master=127.0.0.1:{ports[0]}.{ports[1]}", f"-filer=127.0.0.1:{ports[4]}.{ports[5]}"]
        subprocess.run([str(VENV / "bin/weed"), "shell", *addresses], input=command + "\nexit\n", text=True, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)

    def list(self, prefix):
        names, after = [], ""
        while True:
            page = self.call("list_objects_v2", {"Bucket": self.bucket, "Prefix": prefix, "StartAfter": after})
            names += [entry["Key"][len(prefix):] for entry in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return sorted(names)
            after = page["Contents"][-1]["Key"]

    def gateway(self, prefix, data_dir, plant):
        """What a gateway that replays the plant `plant` into this store wants to know."""
        return {**self.environment(prefix, data_dir), "LOOKOUTD__SOURCE__PARQUET": str(plant / "signals.parquet"),
                "LOOKOUTD__SOURCE__TAGS": str(plant / "tags_description.csv"), "LOOKOUTD__ADMIN__LISTEN": "127.0.0.1:0"}

    def environment(self, prefix, data_dir):
        """What points lookoutd here; other contenders ignore it."""
        return {"LOOKOUTD__DATA_DIR": str(data_dir), "LOOKOUTD__S3__BUCKET": self.bucket, "LOOKOUTD__S3__INPUT_PREFIX": prefix,
                "LOOKOUTD__S3__ENDPOINT_URL": self.endpoint, "LOOKOUTD__S3__REGION": "us-east-1"}
