#!/usr/bin/env bash
# The ladder of APN on watch: bash reports/apn_ladder/watch.sh OUT
# The rows "before" are the first two variants, with NARROWEST_ZONE_T = 1.0 in ptal_ray/methods/apn/loss.py.
set -euo pipefail
lr="train.lr=1e-3"
all="$lr train.contrast_weight=0.003"
few="$all train.train_candidates=200 train.score_candidates=200"
quarter="train.pem_weight=0.25"
background="train.update_medoids=false train.background_proposals=true"
python -m ptal_ray.ablate apn_watch --seeds 6 --out "$1" \
    --variant "1, positive boundary cells, medoids move: $few $quarter train.update_medoids=true" \
    --variant "+ 2, points stay the medoids: $few $quarter train.update_medoids=false" \
    --variant "+ 3, background proposals: $few $quarter $background" \
    --variant "+ 4, sums over classes: $few $background train.pem_weight=1" \
    --variant "+ 1,000 candidates: $all $background train.pem_weight=1" \
    --variant "+ class only where tIoU >= 0.5: $all $background train.pem_weight=1 train.class_target=complete" \
    --variant "the same, lambda_1 3: $all $background train.pem_weight=3 train.class_target=complete" \
    --variant "the same, 378 steps: $all $background train.pem_weight=3 train.class_target=complete budget.max_steps=378" \
    --variant "as 1,000 candidates, without text loss: $all $background train.pem_weight=1 train.text_weight=0" \
    --variant "as 1,000 candidates, without contrast: $lr $background train.pem_weight=1 train.contrast_weight=0"
