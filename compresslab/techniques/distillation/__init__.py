"""Knowledge distillation: response, feature and relation losses; offline, online and self-distillation."""

from compresslab.models.surgery import layer_outputs
from compresslab.techniques.distillation.controls import (
    hard_labels,
    permute_wrong_classes,
    smoothed_cross_entropy,
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
    warm_up,
)
from compresslab.techniques.distillation.retrieval import one_shot_accuracy, recall_at_1
from compresslab.techniques.distillation.self_distillation import (
    EarlyExits,
    balanced_choice,
    born_again,
    confident_labels,
    early_exit_loss,
    exit_hint_loss,
    own_teacher_loss,
)

__all__ = [
    "UNLABELLED",
    "EarlyExits",
    "Knowledge",
    "Peers",
    "Projection",
    "Pupil",
    "Regressor",
    "attention_loss",
    "attention_map",
    "attention_matrix_loss",
    "balanced_choice",
    "born_again",
    "confident_labels",
    "cosine_hint_loss",
    "decoupled_loss",
    "distances",
    "distill",
    "draw_views",
    "early_exit_loss",
    "ensemble_logits",
    "ensemble_losses",
    "exit_hint_loss",
    "hard_labels",
    "hidden_state_loss",
    "hint_loss",
    "kd_loss",
    "kendall_tau",
    "know",
    "labelled_cross_entropy",
    "layer_map",
    "layer_outputs",
    "mutual_loss",
    "neighbour_probabilities",
    "numbered",
    "one_shot_accuracy",
    "own_teacher_loss",
    "peer_losses",
    "permute_wrong_classes",
    "pkt_loss",
    "recall_at_1",
    "response_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_loss",
    "smoothed_cross_entropy",
    "soften",
    "warm_up",
    "without_labels",
]
