#!/usr/bin/env bash
# A whole Ceph with its S3 gateway on the loopback address: mini_ceph.sh PORT FOLDER [memstore|bluestore]
#
# One monitor, one object store daemon, radosgw; no systemd, nothing in /etc. Needs the packages
# radosgw ceph-mon ceph-osd ceph-common. When FOLDER/ready exists, PORT answers to the user "test" with the
# secret "testtest". Runs until it gets SIGTERM, and takes its daemons with it. The monitor's ports are
# fixed: one at a time on a machine.
set -euo pipefail

port=${1:?port}
folder=${2:?folder}
store=${3:-memstore}

rm -rf "$folder"
mkdir -p "$folder"/{mon,osd,rgw,run,log}
cd "$folder"
export CEPH_CONF=$folder/ceph.conf

daemons=()
finish() {
    kill "${daemons[@]}" 2>/dev/null || true
    wait || true
}
trap finish EXIT
trap 'exit 0' TERM

# daemon NAME COMMAND ...: runs in the background, ended by `finish`
daemon() {
    local name=$1
    shift
    "$@" >"log/$name.out" 2>&1 &
    daemons+=($!)
}

# until_true SECONDS COMMAND ...: fails when the command still fails after that time
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > end)); then
            echo "gave up waiting for: $*" >&2
            return 1
        fi
        sleep 0.1
    done
}

fsid=$(uuidgen)
cat >ceph.conf <<CONF
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:6790,v1:127.0.0.1:6789]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = $folder/keyring
auth_allow_insecure_global_id_reclaim = false
run_dir = $folder/run
log_file = $folder/log/\$name.log
admin_socket = $folder/run/\$name.asok
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 10000
ms_bind_ipv6 = false
ms_bind_port_min = 6800
osd_objectstore = $store
memstore_device_bytes = 2147483648
bluestore_block_size = 4294967296
setuser_match_path =
[mon.a]
mon_data = $folder/mon
[osd.0]
osd_data = $folder/osd
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:$port
rgw_data = $folder/rgw
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_gc_max_objs = 7
CONF

# keys
monmaptool --create --clobber --fsid "$fsid" --addv a '[v2:127.0.0.1:6790,v1:127.0.0.1:6789]' monmap \
    >log/monmap.out 2>&1
ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *' >log/keys.out
for name in client.admin client.rgw.a osd.0; do
    ceph-authtool keyring --gen-key -n "$name" \
        --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >>log/keys.out
done

# monitor
ceph-mon -c ceph.conf --mkfs -i a --monmap monmap --keyring keyring
daemon mon ceph-mon -c ceph.conf -i a -f
until_true 30 ceph -c ceph.conf --connect-timeout 2 -s

# object store daemon
osd=$(uuidgen)
ceph -c ceph.conf osd new "$osd" >log/osd-new.out 2>&1
ceph-osd -c ceph.conf -i 0 --mkfs --osd-uuid "$osd" >log/osd-mkfs.out 2>&1
daemon osd ceph-osd -c ceph.conf -i 0 -f
until_true 60 bash -c "ceph -c ceph.conf osd stat | grep -q '1 up'"

# gateway
daemon rgw radosgw -c ceph.conf -n client.rgw.a -f
until_true 120 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
radosgw-admin -c ceph.conf user create --uid test --display-name test \
    --access-key test --secret-key testtest >log/user.out 2>&1

touch ready
echo "ready"
wait
