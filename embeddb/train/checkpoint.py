"""A training run that was cut off goes on where it was: its state in one safetensors file, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embeddb.encoders.model_folder import replace
from embeddb.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file, and ``run``: what is trained how on what, as JSON values. Another run's state is refused."""

    path: Path
    run: Mapping[str, Any]

    def save(self, step: int, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Keep the state after so many steps."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        for name, module in modules.items():
            tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
        metadata = {"step": str(step), "run": json.dumps(self.run, sort_keys=True)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace(self.path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

    def restore(self, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> int:
        """Bring back the state, and say how many steps it has seen; 0 where none was kept.

        Raises EncoderError where the file is of another run, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                if metadata["run"] != json.dumps(self.run, sort_keys=True):
                    raise EncoderError(
                        f"{self.path} is of another run (other settings or data): go on with those, or delete it"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError) as error:
            raise EncoderError(f"{self.path} cannot be read: {error}; delete it to begin anew") from error
        for name, module in modules.items():
            module.load_state_dict(_under(f"{name}/", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer/", tensors).items():
            index, key = name.split("/")
            states.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        return int(metadata["step"])

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
