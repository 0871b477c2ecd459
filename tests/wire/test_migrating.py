"""The lines that the migration guide gives for the helper of the 2021 notebooks, run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/migrating.md"

# As the helper asks: by keyword, with the cloud's address in the code. And as others do.
NOTEBOOK = '''
CLOUD = "https://lookoutequipment.us-east-1.amazonaws.com/"
clients = {
    "keyword": boto3.client(service_name="lookoutequipment", region_name="us-east-1", config=None, endpoint_url=CLOUD),
    "positional": boto3.client("lookoutequipment", "us-east-1", endpoint_url=CLOUD),
    "bare": boto3.client("lookoutequipment", region_name="us-east-1"),
}
for name, client in clients.items():
    assert client.list_datasets()["ResponseMetadata"]["HTTPStatusCode"] == 200, name
    print(name, client.meta.endpoint_url)
for s3 in (boto3.client("s3", "us-east-1", endpoint_url="http://elsewhere.example"),
           boto3.client(service_name="s3", region_name="us-east-1", endpoint_url="http://elsewhere.example")):
    print("s3", s3.meta.endpoint_url)
'''


def test_the_shim_of_the_guide_works_as_printed(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.S)
    (shim,) = [block for block in blocks if "boto3.client" in block]
    script = tmp_path / "notebook.py"
    script.write_text(shim + NOTEBOOK)
    endpoint = os.environ["LOOKOUTD_ENDPOINT"].rstrip("/")
    environment = {**os.environ, "AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT": endpoint}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = [line.rstrip("/") for line in done.stdout.splitlines()]
    assert said == [f"{name} {endpoint}" for name in ("keyword", "positional", "bare")] + ["s3 http://elsewhere.example"] * 2
