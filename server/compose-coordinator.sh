#!/bin/sh
# The coordinator of docker-compose.yml: keys once, enrol the sites as their requests arrive, then run the study.
# /home/sfumato/exchange stands for what a consortium carries by mail: requests one way, plan and grants the other. No data.
# It stands for the telephone, too: a real consortium never sends a fingerprint the way that the document went.
set -eu
home=/home/sfumato/data/coordinator
exchange=/home/sfumato/exchange
# opens the CA's key for the enrolments below and is forgotten with them; people keep theirs in their heads or a safe
passphrase=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
[ -e "$home/plan.json" ] || printf %s "$passphrase" | sfumato coordinator init --home "$home" --plan configs/demo.yaml \
    --name coordinator --ca-passphrase-file -
# the plan with its noise worked out, which is what sites accept
cp "$home/plan.yaml" "$exchange/plan.yaml"
sfumato coordinator fingerprint --home "$home" > "$exchange/coordinator.fingerprint"
for site in $SITES; do
    tries=0
    while [ ! -e "$exchange/$site.request.json" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "site $site sent no enrolment request in time" >&2; exit 7; }
        sleep 1
    done
    printf %s "$passphrase" | sfumato coordinator enrol --home "$home" --grant "$exchange/$site.grant.json" \
        --fingerprint "$(cat "$exchange/$site.fingerprint")" --ca-passphrase-file - "$exchange/$site.request.json"
done
exec sfumato coordinator run --home "$home" --out /home/sfumato/out --host 0.0.0.0 --port 8443
