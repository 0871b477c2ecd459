"""Our declared request shapes against the service model botocore ships: every member, its requirement and constraints."""

import pathlib
import re

from botocore.loaders import Loader

TABLE = pathlib.Path(__file__).parents[2] / "src/service/shapes/table.rs"


def ours():
    """Parses the table: kinds by constant name, and the members of every operation."""
    text = re.sub(r"//.*", "", TABLE.read_text())
    kinds = {}
    for name, body in re.findall(r"static (\w+): Kind = (.*?);\n", text, re.S):
        kinds[name] = body
    operations = {}
    inputs = text[text.index("INPUTS") :]
    for name, body in re.findall(r'\("(\w+)", &\[(.*?)\]\)', inputs, re.S):
        operations[name] = members(body)
    return kinds, operations


def members(body):
    return {name: (need == "must", kind) for need, name, kind in re.findall(r'(must|may)\("(\w+)", &(\w+)\)', body)}


def kind(kinds, name):
    body = kinds[name]
    if body.startswith("Text"):
        least, most, pattern = re.match(r'Text \{ min: (\d+), max: (\w+), pattern: r?"(.*)" \}', body, re.S).groups()
        return ("text", int(least), None if most == "ANY" else int(most.replace("_", "")), pattern)
    if body.startswith("Enum"):
        return ("enum", re.findall(r'"(\w+)"', body))
    if body.startswith("Integer"):
        least, most = re.match(r"Integer \{ min: (.*?), max: (.*?) \}", body).groups()
        return ("integer", int(least), None if most == "i64::MAX" else int(most))
    if body.startswith("List"):
        of, least, most = re.match(r"List \{ of: &(\w+), min: (\d+), max: (\d+) \}", body).groups()
        return ("list", kind(kinds, of), int(least), int(most))
    if body.startswith("Structure"):
        return ("structure", {name: (need, kind(kinds, of)) for name, (need, of) in members(body).items()})
    assert body == "Kind::Time", body
    return ("time",)


def theirs(shapes, name):
    shape = shapes[name]
    if shape["type"] == "structure":
        required = shape.get("required", [])
        # A request without a ClientToken is accepted on purpose.
        return (
            "structure",
            {
                member: (member in required and member != "ClientToken", theirs(shapes, of["shape"]))
                for member, of in shape["members"].items()
            },
        )
    if shape["type"] == "list":
        return ("list", theirs(shapes, shape["member"]["shape"]), shape["min"], shape["max"])
    if shape["type"] == "timestamp":
        return ("time",)
    if shape["type"] in ("integer", "long"):
        return ("integer", shape["min"], shape.get("max"))
    if "enum" in shape:
        return ("enum", shape["enum"])
    return ("text", shape.get("min", 0), shape.get("max"), shape.get("pattern", ""))


def test_the_declared_shapes_are_those_of_the_service_model():
    model = Loader().load_service_model("lookoutequipment", "service-2")
    kinds, operations = ours()
    assert sorted(operations) == sorted(model["operations"])
    for name, operation in model["operations"].items():
        expected = theirs(model["shapes"], operation["input"]["shape"])[1]
        found = {member: (need, kind(kinds, of)) for member, (need, of) in operations[name].items()}
        assert found == expected, name
