"""Sources of images, their batches in [−1, 1], and pictures on disk."""

from diffusion_eqx._face import face as _face
from diffusion_eqx.data.array_dataset import ArrayDataset as ArrayDataset
from diffusion_eqx.data.augmentation import Augmentation as Augmentation
from diffusion_eqx.data.base import Batches as Batches
from diffusion_eqx.data.base import Dataset as Dataset
from diffusion_eqx.data.base import ImagesInMemory as ImagesInMemory
from diffusion_eqx.data.base import PartialBatches as PartialBatches
from diffusion_eqx.data.base import ResumableBatches as ResumableBatches
from diffusion_eqx.data.digits import digits as digits
from diffusion_eqx.data.emoji import emoji as emoji
from diffusion_eqx.data.fashion_mnist import fashion_mnist as fashion_mnist
from diffusion_eqx.data.idx import read_idx as read_idx
from diffusion_eqx.data.image_dataset import ImageDataset as ImageDataset
from diffusion_eqx.data.image_folder import FolderReport as FolderReport
from diffusion_eqx.data.image_folder import ImageFolder as ImageFolder
from diffusion_eqx.data.open_file import open_dataset as open_dataset
from diffusion_eqx.data.picture import image_grid as image_grid
from diffusion_eqx.data.picture import save_animation as save_animation
from diffusion_eqx.data.picture import save_picture as save_picture
from diffusion_eqx.data.pixels import to_bytes as to_bytes
from diffusion_eqx.data.pixels import to_unit_range as to_unit_range
from diffusion_eqx.data.source_dataset import SourceDataset as SourceDataset
from diffusion_eqx.data.sources import as_dataset as as_dataset
from diffusion_eqx.data.stream_dataset import StreamDataset as StreamDataset

__dir__ = _face(globals())
