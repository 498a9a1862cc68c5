"""Knowledge distillation: what is taught (responses, features, relations), and by which strategy."""

from compresslab.techniques.distillation.comparison import (
    METHODS,
    Learned,
    Method,
    learn_alone,
    learn_together,
)
from compresslab.techniques.distillation.experiments import (
    load_results,
    load_student,
    run_experiments,
    values,
)
from compresslab.techniques.distillation.feature import (
    Regressor,
    attention_loss,
    attention_map,
    cosine_hint_loss,
    hint_loss,
)
from compresslab.techniques.distillation.hidden_states import (
    Projection,
    attention_matrix_loss,
    hidden_state_loss,
    layer_map,
)
from compresslab.techniques.distillation.inside import deep_transformer, learn_inside, shallow_transformer
from compresslab.techniques.distillation.offline import (
    Knowledge,
    Pupil,
    distill,
    draw_views,
    know,
    numbered,
    without_labels,
)
from compresslab.techniques.distillation.online import (
    Peers,
    ensemble_logits,
    ensemble_losses,
    mutual_loss,
    peer_losses,
)
from compresslab.techniques.distillation.relation import (
    distances,
    kendall_tau,
    neighbour_probabilities,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_loss,
)
from compresslab.techniques.distillation.response import (
    UNLABELLED,
    decoupled_loss,
    kd_loss,
    labelled_cross_entropy,
    response_loss,
    soften,
)
from compresslab.techniques.distillation.retrieval import one_shot_accuracy, recall_at_1
from compresslab.techniques.distillation.runs import STUDENTS, embed
from compresslab.techniques.distillation.self_distillation import (
    EarlyExits,
    balanced_choice,
    born_again,
    confident_labels,
    early_exit_loss,
    exit_hint_loss,
    own_teacher_loss,
)
from compresslab.techniques.distillation.setting import Setting, few_labels, of_classes
from compresslab.techniques.distillation.taps import tapped

__all__ = [
    "METHODS",
    "STUDENTS",
    "UNLABELLED",
    "EarlyExits",
    "Knowledge",
    "Learned",
    "Method",
    "Peers",
    "Projection",
    "Pupil",
    "Regressor",
    "Setting",
    "attention_loss",
    "attention_map",
    "attention_matrix_loss",
    "balanced_choice",
    "born_again",
    "confident_labels",
    "cosine_hint_loss",
    "decoupled_loss",
    "deep_transformer",
    "distances",
    "distill",
    "draw_views",
    "early_exit_loss",
    "embed",
    "ensemble_logits",
    "ensemble_losses",
    "exit_hint_loss",
    "few_labels",
    "hidden_state_loss",
    "hint_loss",
    "kd_loss",
    "kendall_tau",
    "know",
    "labelled_cross_entropy",
    "layer_map",
    "learn_alone",
    "learn_inside",
    "learn_together",
    "load_results",
    "load_student",
    "mutual_loss",
    "neighbour_probabilities",
    "numbered",
    "of_classes",
    "one_shot_accuracy",
    "own_teacher_loss",
    "peer_losses",
    "pkt_loss",
    "recall_at_1",
    "response_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "run_experiments",
    "shallow_transformer",
    "similarity_loss",
    "soften",
    "tapped",
    "values",
    "without_labels",
]
