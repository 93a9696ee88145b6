"""Weights of a folder on their way into a running worker by vLLM's weight transfer, in place of a trainer's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@dataclass
class Init(WeightTransferInitInfo):
    pass


@dataclass
class Update(WeightTransferUpdateInfo):
    """`patched`: norms alone, written where they are, as sparse updates are (vllm/distributed/weight_transfer,
    `sparse_nccl_engine.py`); else a whole checkpoint by the model's own loader (`nccl_engine.py`)."""

    folder: str
    patched: bool


class Folder(WeightTransferEngine):  # type: ignore[misc]
    init_info_cls, update_info_cls = Init, Update

    def init_transfer_engine(self, init_info: Init) -> None:
        pass

    def start_weight_update(self) -> None:
        self._loading = False

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # vLLM's own waits for an accelerator, which there is none of.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: Update) -> None:
        tensors = load_file(Path(update_info.folder, "model.safetensors"))
        if update_info.patched:
            for name, parameter in self.model.named_parameters():
                if "norm" in name:
                    parameter.data.copy_(tensors[name])
            return
        self._loading = True
        initialize_layerwise_reload(self.model)
        self.model.load_weights(iter(tensors.items()))

    def finish_weight_update(self) -> None:
        if self._loading:
            finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        pass


WeightTransferEngineFactory.register_engine("folder", Folder)


class Registered:
    """What `--worker-extension-cls` names, so that a worker imports this file."""
