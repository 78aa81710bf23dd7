#!/bin/sh
# One site of docker-compose.yml: phantom patients, keys, enrolment, ingest, the plan reviewed and accepted, then joined.
set -eu
home=/home/sfumato/data/site
images=/home/sfumato/data/images
exchange=/home/sfumato/exchange
if [ ! -e "$home/address.json" ]; then
    python3 -m sfumato_common.phantom "$images" --site "$SITE" --patients "${PATIENTS:-1000}" --seed 2303 --device "$DEVICE"
    sed "s/^site: .*/site: $SITE/" configs/policy.yaml > /home/sfumato/data/policy.yaml
    printf 'kind: dicom\nfolder: %s\nlabels: %s/labels.csv\n' "$images" "$images" > /home/sfumato/data/source.yaml
    sfumato-site init --home "$home" --policy /home/sfumato/data/policy.yaml
    sfumato-site fingerprint --home "$home" > "$exchange/$SITE.fingerprint"
    cp "$home/enrolment-request.json" "$exchange/$SITE.request.json"
    while [ ! -e "$exchange/$SITE.grant.json" ]; do sleep 1; done
    sfumato-site ingest --home "$home" --plan "$exchange/plan.yaml" /home/sfumato/data/source.yaml
    sfumato-site accept --home "$home" --yes "$exchange/plan.yaml"
    sfumato-site join --home "$home" "$exchange/$SITE.grant.json" \
        --coordinator coordinator:8443 --fingerprint "$(cat "$exchange/coordinator.fingerprint")"
fi
# the SuperLink opens its door when every site is enrolled; a SuperNode that comes too early gives up. The gate takes
# connections before that, so that only the coordinator's own certificate shows that the door is open.
until python3 -c "import ssl; ssl.get_server_certificate(('coordinator', 8443), timeout=5)" 2>/dev/null; do sleep 2; done
sleep 5
exec sfumato-site run --home "$home"
