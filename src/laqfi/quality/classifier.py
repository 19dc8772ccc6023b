"""The feature network: a small convolutional classifier, trained once and then frozen."""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from laqfi.base.errors import LaqfiError
from laqfi.base.random import derive_seed, generator

if TYPE_CHECKING:
    from laqfi.quality.params import Classifier

FEATURES = 84  # as many as the last hidden layer of LeNet-5 (LeCun et al. 1998)
SMALLEST = 4  # side of the last feature map
CLASSES = 1000  # at most: a wrong label must not ask for a huge layer


def check_classes(labels: int, side: int) -> None:
    """Raises LaqfiError for images of so many labels and this side that no classifier can be trained on."""
    found = f"features.network is classifier, of images with {labels} labels and side {side}"
    if not 2 <= labels <= CLASSES:
        raise LaqfiError(f"{found}; allowed are 2 to {CLASSES} labels, or inception or efficientnet_lite0")
    if math.log2(side / SMALLEST) % 1:
        raise LaqfiError(f"{found}; allowed is a side of 4 times a power of two, or inception or efficientnet_lite0")


def convolution(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]


class FeatureNet(nn.Module):
    """Convolutions down to a 4 x 4 map, 84 features, class scores. Sides are 4 times a power of two."""

    def __init__(self, channels: int, side: int, classes: int):
        super().__init__()
        self.image, self.classes = [channels, side], classes
        blocks, width = convolution(channels, 32), 32
        for _ in range(int(math.log2(side // SMALLEST))):
            blocks += [nn.MaxPool2d(2), *convolution(width, 64)]
            width = 64
        self.convolutions = nn.Sequential(*blocks, nn.Flatten())
        self.hidden = nn.Linear(width * SMALLEST**2, FEATURES)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] in [-1, 1] to [B, 84]."""
        return F.relu(self.hidden(self.convolutions(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.dropout(self.features(x)))


def shift(x: Tensor, rows: int, columns: int) -> Tensor:
    """Move the view over the images by whole pixels (the content goes the other way), background (-1) coming in."""
    margin = max(abs(rows), abs(columns))
    padded = F.pad(x, (margin,) * 4, value=-1.0)
    height, width = x.shape[-2:]
    return padded[..., margin + rows : margin + rows + height, margin + columns : margin + columns + width]


def fit(network: FeatureNet, images: Tensor, labels: Tensor, settings: "Classifier", seed: int) -> None:
    """Cross-entropy with Adam, cosine learning rate and random shifts; images [N, C, H, W] in [-1, 1]."""
    device = next(network.parameters()).device
    random = generator("classifier", seed)
    reach = images.shape[-1] // 8
    per_epoch = math.ceil(len(images) / settings.batch_size)
    # Fused: the other implementation takes `torch.sqrt`, whose last digit depends on the processor.
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * per_epoch)
    torch.manual_seed(derive_seed("classifier dropout", seed))
    network.train()
    for _ in tqdm(range(settings.epochs), "features", unit="epoch"):
        for batch in torch.from_numpy(random.permutation(len(images))).split(settings.batch_size):
            x = shift(images[batch].to(device), *random.integers(-reach, reach + 1, 2).tolist())
            loss = F.cross_entropy(network(x), labels[batch].to(device), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.inference_mode()
def accuracy(network: FeatureNet, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """Share of images classified right."""
    device = next(network.parameters()).device
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    right = sum(int((network(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in pairs)
    return right / len(images)
