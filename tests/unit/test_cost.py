"""The price list, and what it says of bad ones."""

import re
from pathlib import Path

import pytest
import yaml

from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.prices import load_prices, parse_prices

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "prices.yml"


def test_a_cluster_costs_its_driver_on_demand_and_its_workers_at_the_spot_price():
    prices = parse_prices("{currency: EUR, spot_factor: 0.5, machines: {small: {vm: 0.2, dbu: 0.3}, free: {vm: 0, dbu: 0}}}")
    assert prices.per_hour("small", 0) == pytest.approx(0.2 + 0.3)
    assert prices.per_hour("small", 2) == pytest.approx(0.2 + 0.3 + 2 * (0.1 + 0.3))
    assert prices.per_hour("free", 2) == 0
    assert prices.per_hour("large", 2) is None


def test_the_shipped_list_has_every_machine_of_the_bundle():
    wanted = set(re.findall(r"\b(?:Standard_\w+|[a-z]\d\w*\.\d*xlarge)\b", (ROOT / "databricks.yml").read_text()))
    assert len(wanted) >= 2
    assert wanted | {"serverless", "this machine"} <= set(load_prices(SHIPPED).machines)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("currency",), None, "'currency' is missing"),
        (("currency",), 1, "currency: 1 is not a currency"),
        (("colour",), "blue", "unknown key 'colour'"),
        (("spot_factor",), 1.5, "spot_factor: 1.5 is above 1"),
        (("spot_factor",), "half", "spot_factor: 'half'"),
        (("machines",), [], "machines: must be a mapping"),
        (("machines", "m6id.xlarge"), 0.5, "machines.m6id.xlarge: must be a mapping"),
        (("machines", "m6id.xlarge", "dbu"), None, "machines.m6id.xlarge: 'dbu' is missing"),
        (("machines", "m6id.xlarge", "vm"), -1, "machines.m6id.xlarge.vm: -1"),
        (("machines", "m6id.xlarge", "vm"), True, "machines.m6id.xlarge.vm: True"),
        (("machines", "m6id.xlarge", "vm"), "0,23", "machines.m6id.xlarge.vm: '0,23'"),
        (("machines", "m6id.xlarge", "vm"), float("nan"), "machines.m6id.xlarge.vm: nan"),
    ],
)
def test_an_error_in_the_list_names_file_and_key(path, value, named):
    document = yaml.safe_load(SHIPPED.read_text())
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(UsageError, match=f"^my prices.yml: .*{re.escape(named)}"):
        parse_prices(yaml.safe_dump(document), "my prices.yml")
