# Sourced by tests/clients/pull.sh: a registry with TLS under an authority of its own, clients with certificates, a proxy.
ca=$scratch/ca certs=$scratch/certs name=registry.test
mkdir -p "$ca" "$certs"
sign() { # NAME EXTENSION
    openssl req -newkey rsa:2048 -nodes -keyout "$ca/$1.key" -subj "/CN=$1" -out "$ca/$1.csr" 2>/dev/null
    openssl x509 -req -in "$ca/$1.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -CAcreateserial -days 2 -out "$ca/$1.crt" -extfile <(printf '%s\n' "$2") 2>/dev/null
}
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$ca/ca.key" -subj /CN=test-ca -days 2 -out "$ca/ca.crt" 2>/dev/null
sign server "subjectAltName=IP:127.0.0.1,DNS:$name"
sign client extendedKeyUsage=clientAuth

tls="  tls:
    certificate: $ca/server.crt
    key: $ca/server.key" registry
refused pull::unknown_authority 'invalid peer certificate: UnknownIssuer' "$host/x/app:1"
cp "$ca/ca.crt" "$certs/"
run pull --cert-dir "$certs" "$host/x/app:1" >"$out" 2>&1 && pass pull::cert_dir || fail pull::cert_dir "$(cat "$out")"
mkdir -p "$scratch/home/.config/containers/certs.d/$host"
cp "$ca/ca.crt" "$scratch/home/.config/containers/certs.d/$host/own.crt"
HOME=$scratch/home XDG_CONFIG_HOME='' run pull "$host/x/app:1" >"$out" 2>&1 && pass pull::certs_of_the_user || fail pull::certs_of_the_user "$(cat "$out")"
SSL_CERT_FILE=$ca/ca.crt run pull "$host/x/app:1" >"$out" 2>&1 && pass pull::certs_of_the_host || fail pull::certs_of_the_host "$(cat "$out")"
run pull --tls-verify=false "$host/x/app:1" >"$out" 2>&1 && pass pull::no_verification || fail pull::no_verification "$(cat "$out")"

# A name that only the proxy knows.
proxy=127.0.0.1:$(free_port)
python3 "$repo/scripts/clients.d/proxy.py" "${proxy#*:}" "$name" 127.0.0.1 >"$scratch/proxy.log" 2>&1 </dev/null &
proxy_pid=$!
until (: >"/dev/tcp/127.0.0.1/${proxy#*:}") 2>/dev/null; do sleep 0.1; done
https_proxy=http://user:pass@$proxy run pull --cert-dir "$certs" "$name:${host#*:}/x/app:1" >"$out" 2>&1 && pass pull::proxy || fail pull::proxy "$(cat "$out")"
equal pull::proxy_is_used "$(grep -c "^CONNECT $name:${host#*:} Basic dXNlcjpwYXNz$" "$scratch/proxy.log" | sed 's/[1-9][0-9]*/some/')" some
lines=$(wc -l <"$scratch/proxy.log")
if https_proxy=$proxy no_proxy=.other,test run pull --cert-dir "$certs" "$name:${host#*:}/x/app:1" >"$out" 2>&1; then fail pull::no_proxy "reached"; else pass pull::no_proxy; fi
https_proxy=$proxy run pull --cert-dir "$certs" "$host/x/app:1" >"$out" 2>&1 && pass pull::no_proxy_for_this_machine || fail pull::no_proxy_for_this_machine "$(cat "$out")"
equal pull::proxy_is_not_used "$(wc -l <"$scratch/proxy.log")" "$lines"
kill $proxy_pid $registry_pid
wait $proxy_pid $registry_pid || true

# A registry that wants to see a certificate.
tls="  tls:
    certificate: $ca/server.crt
    key: $ca/server.key
    clientcas: [$ca/ca.crt]" registry
refused pull::no_certificate 'x/app:1: ' "$host/x/app:1" --cert-dir "$certs"
cp "$ca/client.crt" "$certs/client.cert"
refused pull::certificate_without_key 'client.cert: there is no .*client.key' "$host/x/app:1" --cert-dir "$certs"
cp "$ca/client.key" "$certs/"
run pull --cert-dir "$certs" "$host/x/app:1" >"$out" 2>&1 && pass pull::certificate || fail pull::certificate "$(cat "$out")"
kill $registry_pid
wait $registry_pid || true
