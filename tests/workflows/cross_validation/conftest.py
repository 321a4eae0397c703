"""One cross-validation for all tests that only look at it."""

import file_layers
import pytest
from cross_validations import write_data

from trainkit.api import cross_validate


@pytest.fixture(scope="package")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cv")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch, file_layers.installed(file_layers.SYNC_FREE):
        patch.setattr("trainkit.workflows.train.finish.report_training", lambda run, setup, *, frontend: None)
        patch.setattr("trainkit.workflows.train.run.measure_facts", lambda setup: {})
        return cross_validate(folder / "c.yaml", folds=3, group="patient", cv_dir=folder / "cv")
