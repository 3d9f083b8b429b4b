#!/bin/sh
# What site.yml does to a fresh host, as somebody would write it who is in a hurry: no check, no way back. Usage: by_hand.sh SSH_CONFIG HOST PROGRAMS ARCHIVE WORKSPACE
# shellcheck disable=SC2016 # the host expands it
set -eu
config=$1 host=$2 programs=$3 archive=$4 workspace=$5
at="ssh -F $config $host"
$at 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends containerd > /dev/null'
$at 'mkdir -p /usr/local/lib/gvisor/1 /srv/model'
scp -q -F "$config" "$programs/runsc" "$programs/containerd-shim-runsc-v1.no-oom-score" "$host:/usr/local/lib/gvisor/1/"
$at 'cd /usr/local/lib/gvisor/1 && chmod 0755 * && ln -sf "$PWD/runsc" /usr/local/bin/runsc &&
  ln -sf "$PWD/containerd-shim-runsc-v1.no-oom-score" /usr/local/bin/containerd-shim-runsc-v1'
$at 'printf "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runsc]\n  runtime_type = \"io.containerd.runsc.v1\"\n" >> /etc/containerd/config.toml
  systemctl restart containerd && ctr version > /dev/null'
scp -q -F "$config" "$archive" "$host:/root/ggen.tar"
$at 'ctr images import /root/ggen.tar > /dev/null && rm /root/ggen.tar'
scp -q -r -F "$config" "$workspace/." "$host:/srv/model"
$at 'ctr run --rm --runtime io.containerd.runsc.v1 --annotation io.kubernetes.cri.container-type=sandbox --mount type=bind,src=/srv/model,dst=/workspace,options=rbind:rw \
  --cwd /workspace docker.io/library/ggen:latest bench /usr/local/bin/ggen sync > /dev/null'
