"""The paper's tasks, one module each: a dataset and its LightningDataModule."""
