"""The data that networks are trained on: one file and one LightningDataModule per task."""
