"""DINO's loss, centre and gradient, written pair by pair in float64 NumPy from the published description."""

from __future__ import annotations

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def loss_and_gradient(student, teacher, centre, *, student_temp, teacher_temp):
    """(loss, its gradient by the student's logits [B, V, K], mean teacher entropy)."""
    student, teacher = student.astype(np.float64), teacher.astype(np.float64)
    gradient = np.zeros_like(student)
    total, pairs = 0.0, 0
    batch = len(student)
    for i in range(teacher.shape[1]):
        target = softmax((teacher[:, i] - centre) / teacher_temp)
        for j in range(student.shape[1]):
            if i == j:
                continue
            predicted = softmax(student[:, j] / student_temp)
            total += np.mean(np.sum(-target * np.log(predicted), axis=-1))
            gradient[:, j] += (predicted - target) / student_temp / batch
            pairs += 1
    probabilities = softmax((teacher - centre) / teacher_temp)
    entropy = np.mean(np.sum(-probabilities * np.log(probabilities), axis=-1))
    return total / pairs, gradient / pairs, entropy
