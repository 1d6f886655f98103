"""The group `model`: one class a network, chosen by `name`; each has the keys that its network reads and no others."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from scout.group import Group, Size, chosen_by_name

MemoryKind = Literal["lstm", "gru", "none"]


class ModelConfig(Group):
    """What every network has."""

    name: str
    """Which network."""
    target: str | None = None
    """Your own network, as module.Class: called with (PolicyEnvInterface, this group)."""
    options: dict[str, Any] = {}
    """Free keys for a network of your own; refused without target."""
    hidden_size: Size = 512
    """Width of the recurrent layer."""

    @property
    def label(self) -> str:
        """How the config names the network."""
        return f"model={self.name}" if self.target is None else f"model.target={self.target}"

    @model_validator(mode="after")
    def _options_have_a_reader(self) -> Self:
        if self.options and self.target is None:
            raise ValueError(f"model.options={self.options} is only for a network of your own: set model.target")
        return self


class ConvolutionConfig(ModelConfig):
    """What networks with two convolutions have."""

    conv_channels: Annotated[list[Size], Field(min_length=2, max_length=2)] = [64, 128]
    """Channels of the two convolutions."""
    kernel_size: Size = 3
    """Side of the convolutions' kernels, in cells; odd."""
    stride: Size = 2
    """Stride of both convolutions, in cells."""

    @model_validator(mode="after")
    def _kernel_has_a_centre(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"model.kernel_size={self.kernel_size} must be odd: take {self.kernel_size + 1}")
        return self


class CnnLstmConfig(ConvolutionConfig):
    name: Literal["cnn_lstm"] = "cnn_lstm"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The seed notebook's network, which cogames' `tutorial` policy can play."""
    cnn_features: Size = 256
    """Width of the layer after the convolutions."""
    self_features: Size = 256
    """Width of the layer that reads the agent's own cell."""


class EmbeddingConfig(ModelConfig):
    """What networks have that embed tokens."""

    memory: MemoryKind = "gru"
    """gru, lstm, or none: a layer without memory in their place."""
    embedding_size: Size = 32
    """Width of a token's embedding."""
    global_features: Size = 128
    """Width of the layer that reads the tokens of no cell: place, time, last action, the team's stock."""
    features: Size = 256
    """Width of the layer that reads the cells."""
    turned_views: bool = True
    """Each agent sees the world turned by its number of quarter turns, so that one habit spreads the team out."""


class ConvConfig(ConvolutionConfig, EmbeddingConfig):
    name: Literal["conv"] = "conv"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Convolutions over embedded tokens, and the tokens of no cell beside them."""
    conv_channels: Annotated[list[Size], Field(min_length=2, max_length=2)] = [64, 64]
    """Channels of the two convolutions."""
    hidden_size: Size = 256
    """Width of the recurrent layer."""


class AttentionConfig(EmbeddingConfig):
    name: Literal["attention"] = "attention"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Attention over the set of embedded tokens."""
    embedding_size: Size = 64
    """Width of a token's embedding."""
    token_features: Size = 128
    """Width of the layer that reads each token."""
    heads: Size = 8
    """Learned questions that are put to the tokens; divides token_features."""
    hidden_size: Size = 256
    """Width of the recurrent layer."""

    @model_validator(mode="after")
    def _heads_share_the_features(self) -> Self:
        if self.token_features % self.heads:
            raise ValueError(
                f"model.heads={self.heads} must divide model.token_features={self.token_features}: "
                f"take model.token_features={max(round(self.token_features / self.heads), 1) * self.heads}"
            )
        return self


_Network = (
    Annotated[CnnLstmConfig, Tag("cnn_lstm")]
    | Annotated[ConvConfig, Tag("conv")]
    | Annotated[AttentionConfig, Tag("attention")]
)
Model = Annotated[_Network, Discriminator(chosen_by_name("conv"))]
"""Any network's group; conv where none is named."""
ForeignModel = Annotated[_Network, Discriminator(chosen_by_name("cnn_lstm"))]
"""Any network's group; the seed's where none is named, for weights that came without their run folder."""
