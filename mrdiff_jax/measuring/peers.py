"""PyTorch networks of the size of ours, from libraries that people use; eager and in float32, as these come."""

from typing import Any

import jax
import numpy as np

from mrdiff_jax import host
from mrdiff_jax.fields import Model


def diffusers(size: Model, side: int, sources: int) -> Any:
    """UNet2DModel with residual blocks that resample and take the step by scale and shift, as ours do."""
    from diffusers import UNet2DModel

    attends = [level in size.attention_levels for level in range(len(size.channel_mult))]
    network = UNet2DModel(
        sample_size=side,
        in_channels=sources,
        out_channels=1,
        block_out_channels=_channels(size),
        layers_per_block=size.blocks_per_level,
        down_block_types=tuple("AttnDownBlock2D" if attention else "DownBlock2D" for attention in attends),
        up_block_types=tuple("AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=size.head_channels,
        norm_num_groups=size.norm_groups,
    )
    return network, lambda x, t: network(x, t).sample


def monai(size: Model, side: int, sources: int) -> Any:
    """DiffusionModelUNet with residual blocks that resample, as ours do."""
    from monai.networks.nets import DiffusionModelUNet

    network = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=sources,
        out_channels=1,
        channels=_channels(size),
        attention_levels=[level in size.attention_levels for level in range(len(size.channel_mult))],
        num_res_blocks=size.blocks_per_level,
        num_head_channels=size.head_channels,
        norm_num_groups=size.norm_groups,
        resblock_updown=True,
    )
    return network, network


LIBRARIES = {"diffusers": diffusers, "monai": monai}


def _channels(size: Model) -> tuple[int, ...]:
    return tuple(size.base_channels * factor for factor in size.channel_mult)


class Peer:
    """A network of one of the libraries with a batch, on the kind of device that JAX uses, with as many threads."""

    def __init__(self, library: str, size: Model, sources: np.ndarray, target: np.ndarray):
        """Sources (B, H, W, K) and target (B, H, W), as ours takes them."""
        import torch

        torch.set_num_threads(host.cores())
        self._torch, self.device = torch, "cuda" if jax.default_backend() == "gpu" else "cpu"
        network, self._apply = LIBRARIES[library](size, sources.shape[1], sources.shape[-1])
        self._network = network.to(self.device)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
        self._sources = torch.from_numpy(sources).permute(0, 3, 1, 2).contiguous().to(self.device)
        self._target = torch.from_numpy(target)[:, None].to(self.device)
        self._step = torch.zeros(len(sources), dtype=torch.long, device=self.device)
        self.parameters = sum(weight.numel() for weight in network.parameters())

    def train(self) -> None:
        """A step of Adam on the mean distance to the target."""
        self._optimizer.zero_grad()
        (self._apply(self._sources, self._step) - self._target).abs().mean().backward()
        self._optimizer.step()
        self._wait()

    def predict(self) -> None:
        """The target from the sources."""
        with self._torch.no_grad():
            self._apply(self._sources, self._step)
        self._wait()

    def _wait(self) -> None:
        if self.device == "cuda":
            self._torch.cuda.synchronize()
