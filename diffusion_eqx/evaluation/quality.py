"""How good the images are that a model draws while it is trained."""

import dataclasses

import numpy as np

from diffusion_eqx.evaluation.classifier import ImageClassifier, accuracy
from diffusion_eqx.evaluation.features import Features, extract
from diffusion_eqx.evaluation.frechet import frechet_of_moments, moments
from diffusion_eqx.evaluation.reference import Reference
from diffusion_eqx.training import Callback, Run


@dataclasses.dataclass(frozen=True)
class Quality(Callback):
    """Adds `frechet_distance` and `accuracy` of images drawn by the averaged model to the reports of a run.

    It measures in the first report at or after each `every` steps, and in the last one. The images have the
    same noise each time, and the same whatever else is done with the run; they are drawn by one program.

    - `reference`: the statistics of real images, of `make_reference`.
    - `features`: the function that these were made by.
    - `classifier`: what judges whether an image shows its class; None, or a model without classes: there is
      no `accuracy`.
    - `every`: steps between two measurements.
    - `count`: images that are drawn, of all classes in turn. The Fréchet distance is biased upwards for few
      images: compare figures of one count.
    - `sampler`, `steps`: how they are drawn; None: as the model recommends.
    - `guidance`: scale of classifier-free guidance; None: none.
    - `batch_size`: how many are computed at once; it changes nothing but memory and time.
    """

    optional = True

    reference: Reference
    features: Features
    classifier: ImageClassifier | None = None
    every: int = 1000
    count: int = 1000
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    batch_size: int = 250

    def __post_init__(self):
        if self.every < 1 or self.count < 2:
            raise ValueError(
                f"every must be at least 1 and count at least 2; got {self.every} and {self.count}"
            )
        self.reference.check(self.features)

    def evaluate(self, run: Run, row: dict[str, float]) -> dict[str, float] | None:
        """Draw and measure, if it is due."""
        before = int(run.rows[-2]["step"]) if len(run.rows) > 1 else 0
        if not (run.finished or run.step // self.every > before // self.every):
            return None
        model = run.model()
        classes = model.num_classes
        labels = None if classes is None else np.arange(self.count, dtype=np.int32) % classes
        parts = model.sample_batches(
            self.count,
            self.sampler,
            batch=self.batch_size,
            steps=self.steps,
            labels=labels,
            guidance=self.guidance,
            key=run.key("quality"),
            progress=False,
        )
        images = self.reference.preprocessing.apply(np.concatenate(list(parts)))
        rows = extract(self.features, images, batch_size=self.batch_size)
        found = {
            "frechet_distance": frechet_of_moments(
                *moments(rows), self.reference.mean, self.reference.covariance
            )
        }
        if labels is not None and self.classifier is not None:
            found["accuracy"] = accuracy(self.classifier, images, labels)
        return found
