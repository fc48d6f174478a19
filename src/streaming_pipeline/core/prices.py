"""`config/prices.yml`: what a cluster costs an hour."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming_pipeline.core.config_files import Checker, parse_yaml, read_text


@dataclass(frozen=True)
class Machine:
    """What one machine costs an hour: `vm` on demand, to the cloud, and `dbu`, to Databricks."""

    vm: float
    dbu: float


@dataclass(frozen=True)
class Prices:
    """The list: machines by node type, and the share of `vm` that a spot machine costs."""

    currency: str
    spot_factor: float
    machines: Mapping[str, Machine]

    def per_hour(self, node_type: str, workers: int) -> float | None:
        """What a driver on demand and so many spot workers cost together; None for a machine that the list lacks."""
        machine = self.machines.get(node_type)
        if machine is None:
            return None
        return machine.vm + machine.dbu + workers * (self.spot_factor * machine.vm + machine.dbu)


def load_prices(path: str | Path) -> Prices:
    """Read and validate the price list; raises `UsageError` naming file and key."""
    return parse_prices(read_text(path, "the price list"), str(path))


def parse_prices(text: str, source: str = "price list") -> Prices:
    """The prices that `text` (YAML) holds; raises `UsageError` naming `source` and the key at fault."""
    document, _ = parse_yaml(text, source)
    check = Checker(source)
    keys = {"currency", "spot_factor", "machines"}
    top = check.mapping(document, "the file", keys, keys)
    if not isinstance(top["currency"], str):
        check.fail("currency", f"{top['currency']!r} is not a currency such as USD")
    if not isinstance(top["machines"], dict):
        check.fail("machines", "must be a mapping of node types to their prices")
    spot_factor = _number(check, top["spot_factor"], "spot_factor")
    if spot_factor > 1:
        check.fail("spot_factor", f"{top['spot_factor']!r} is above 1: it is the share of vm that a spot machine costs")
    machines = {}
    for node_type, item in top["machines"].items():
        key = f"machines.{node_type}"
        prices = check.mapping(item, key, {"vm", "dbu"}, {"vm", "dbu"})
        machines[str(node_type)] = Machine(*(_number(check, prices[name], f"{key}.{name}") for name in ("vm", "dbu")))
    return Prices(top["currency"], spot_factor, machines)


def _number(check: Checker, value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        check.fail(key, f"{value!r} is not a price or share such as 0.25")
    return float(value)
