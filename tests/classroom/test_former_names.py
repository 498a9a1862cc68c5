"""Copies of the labs that 0.1.0 made go on working: every name that their cells use is found, with a warning.

The tables below are what the five editions of 0.1.0 import and use of it, read from their cells.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from submissions import right_answers

from compresslab.course import find_lab

EDITION = Path(__file__).parents[1] / "cli" / "made_by_0_1_0" / "00_measuring.ipynb"
OPENINGS = {
    "measuring": "from compresslab.classroom import lab, metric, pictures, verdict, widgets",
    "quantization": """
from compresslab.classroom import lab, metric, pictures, verdict
from compresslab.classroom import quantization_pictures as grids
from compresslab.techniques import quantization as q""",
    "distillation": """
from compresslab.classroom import distillation_pictures as scenes
from compresslab.classroom import gain_pictures as gains_as
from compresslab.classroom import lab, metric, verdict
from compresslab.techniques import distillation as d""",
    "pruning": """
from compresslab.classroom import gain_pictures as gains_as
from compresslab.classroom import lab, metric, pictures, verdict
from compresslab.classroom import pruning_pictures as scenes
from compresslab.classroom import sparsity_pictures as curves
from compresslab.storage import forms
from compresslab.techniques import pruning as p""",
    "low_rank": """
from compresslab.classroom import gain_pictures as gains_as
from compresslab.classroom import lab, metric, pictures, verdict
from compresslab.classroom import low_rank_pictures as scenes
from compresslab.classroom import thinness_pictures as curves
from compresslab.techniques import low_rank as thin""",
}
USED = {
    "measuring": """pictures draw_classes draw_convolution_cost draw_guesses draw_ratios
        widgets explore_convolution""",
    "quantization": """pictures draw_guesses
        grids draw_channels draw_clipping draw_errors draw_grid draw_sensitivity explore_grid grid_error
        q convert fold_batch_norm in_float32 load_experiment prepare quantize_static quantize_weights
        q run_in_integers sensitivity store_as""",
    "distillation": """scenes draw_attention draw_relations draw_soft_targets_at explore_soft_targets
        gains_as draw_accuracy draw_by_teacher draw_gains draw_taxonomy
        d METHODS Pupil STUDENTS distill embed few_labels kendall_tau know labelled_cross_entropy load_results
        d load_student response_loss tapped values""",
    "pruning": """pictures draw_guesses
        gains_as draw_gains
        scenes draw_granularities draw_pruning draw_sensitivity draw_weight_histograms explore_pruning
        curves draw_accuracy_by_sparsity draw_csr_break_even draw_file_bytes draw_tradeoffs
        forms BITMAP CSR DENSE relative_index sizes
        p CRITERIA GRANULARITIES as_sparse_product batch_norm_scale channel_scores dependency_groups
        p fit_masked input_norms input_second_moments keep_channels load_network load_results local_masks
        p magnitude magnitudes masked masked_curve masks_of mean_gradients n_of_m_mask prunable_layers
        p recalibrate_batch_norm remove_channels sparsity_table squared_gradients store_sparsely
        p surgeon_curves tuned_accuracies tuned_curve values""",
    "low_rank": """pictures draw_guesses
        gains_as draw_gains
        scenes draw_filters draw_filters_at_rank draw_rank_plan draw_spectra explore_filters
        curves draw_accuracy_by_macs draw_cancellation draw_errors_by_rank draw_speedups
        thin CHANNELS CP DEPTHWISE SPLITS TUCKER add_updates as_ranks cancellation count_weights cp
        thin factorization_table factorize from_cp from_space from_tucker input_second_moments
        thin load_against_tensorly load_network load_results merge_updates output_error rank_for_weights
        thin ranks_for_weights space_kernels thin_layers thin_like truncated_svd tucker2
        thin values whitened_svd""",
}


@pytest.mark.parametrize("lab", OPENINGS)
@pytest.mark.filterwarnings("ignore:compresslab:DeprecationWarning")
def test_every_name_that_a_copy_of_the_former_version_uses_is_found(lab):
    cell: dict = {}
    exec(OPENINGS[lab], cell)
    missing = [
        f"{module}.{name}"
        for line in USED[lab].splitlines()
        for module, *names in [line.split()]
        for name in names
        if not hasattr(cell[module], name)
    ]
    assert missing == []


@pytest.mark.filterwarnings("ignore:compresslab:DeprecationWarning")
def test_the_first_cells_of_a_former_copy_run_and_its_checks_pass(capsys):
    cells = {cell.id: cell.source for cell in nbformat.read(EDITION, as_version=4).cells}
    (first,) = [text for text in cells.values() if "from compresslab.classroom" in text]
    (opening,) = [text for text in cells.values() if "= lab(" in text]
    notebook: dict = {}
    exec(first, notebook)
    exec(opening, notebook)
    for exercise in find_lab("measuring").exercises:
        exec(right_answers(find_lab("measuring"))[exercise.name], notebook)
        exec(cells[f"check-{exercise.name}"], notebook)
        assert "✓" in capsys.readouterr().out


def test_a_former_name_warns_the_cell_that_uses_it_and_says_where_it_is_now():
    from compresslab import classroom
    from compresslab.techniques import pruning

    with pytest.warns(
        DeprecationWarning, match="lab is now in compresslab.notebook.lab; .* update LAB"
    ) as lab:
        assert classroom.lab is not None
    with pytest.warns(DeprecationWarning, match="values is now in compresslab.experiments") as values:
        assert pruning.values is not None
    with pytest.warns(DeprecationWarning, match=r"now in .*pruning.gram_matrices") as gram:
        assert pruning.input_second_moments is pruning.gram_matrices
    assert {warning.filename for warning in (*lab, *values, *gram)} == {__file__}


@pytest.mark.parametrize("name", ["anything", "__wrapped__"])
def test_what_the_former_package_never_had_is_no_attribute(name):
    from compresslab import classroom

    with pytest.raises(AttributeError, match=name):
        getattr(classroom, name)


def test_without_the_former_package_a_family_has_its_own_names_alone():
    code = "from compresslab.techniques import pruning; print(hasattr(pruning, 'load_results'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
