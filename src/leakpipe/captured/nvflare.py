"""A filter for NVFlare that captures models and updates. A federation imports it; the pipeline is not needed.

On a client, as the LAST of the filters of task results, it captures what leaves the house, after the privacy filters;
as a filter of task data, what arrives. On the server the same filter captures what the server sends and gets.
"""

from pathlib import Path

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.filter import FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FilterKey, FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from leakpipe.captured.writing import Recorder

KINDS = {DataKind.WEIGHTS: "full", DataKind.WEIGHT_DIFF: "difference"}


class CaptureFilter(DXOFilter):  # type: ignore[misc]  # NVFlare has no types where it is not installed
    """Writes each DXO of weights or weight differences that passes to leakpipe's files, and does not change it.

    Args:
        folder: Where to write. Every run of a job needs its own; clients on one machine may share one.
        tasks: Names of the tasks whose data are captured.
    """

    def __init__(self, folder: str, tasks: list[str] | None = None) -> None:
        super().__init__(supported_data_kinds=[*KINDS], data_kinds_to_filter=None)
        self.folder = folder
        self.tasks = tasks or [AppConstants.TASK_TRAIN]
        self._recorder: Recorder | None = None
        self._last_global: int | None = None

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> None:
        """Captures one DXO; see `DXOFilter`."""
        if fl_ctx.get_prop(FLContextKey.TASK_NAME) not in self.tasks:
            return
        to_client = bool(self.get_prop(FilterContextKey.CHAIN_TYPE) == FilterChainType.TASK_DATA_CHAIN)
        outward = bool(fl_ctx.get_prop(FLContextKey.FILTER_DIRECTION) == FilterKey.OUT)
        on_server = outward == to_client
        round_number = self._round(dxo, shareable, fl_ctx)
        if self._recorder is None:
            self._recorder = Recorder(Path(self.folder), "nvflare")
        if to_client and on_server:
            if self._last_global == round_number:  # the server filters it once for each client
                return
            self._last_global = round_number
        peer = fl_ctx.get_peer_context()
        client = peer.get_identity_name() if on_server and peer else fl_ctx.get_identity_name()
        self._recorder.write(
            dxo.data,
            direction="sent" if not to_client else "global" if on_server else "received",
            kind=KINDS[dxo.data_kind],
            round_number=round_number,
            client=None if to_client and on_server else str(client),
            steps=dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND),
        )

    @staticmethod
    def _round(dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> int:
        found = shareable.get_header(AppConstants.CURRENT_ROUND)
        if found is None:
            found = dxo.get_meta_prop(MetaKey.CURRENT_ROUND)
        if found is None:
            found = fl_ctx.get_prop(AppConstants.CURRENT_ROUND, 0)
        return int(found)
