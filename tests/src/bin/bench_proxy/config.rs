//! PURE: the configurations of the other proxies, according to their documentation.
//!
//! Equal work: one worker, keep-alive to the origin, no effective time limit, the header fields of
//! cless (`X-Forwarded-For`, `-Proto`, `-Host`, `Via`, `X-Request-Id`) as far as the proxy supports
//! them, and the request log on or off for all.

use std::net::SocketAddr;
use std::path::Path;

use super::peers::Ports;

pub(crate) struct Params<'a> {
    pub(crate) ports: Ports,
    pub(crate) origin: SocketAddr,
    /// Folder of certificate, logs and scratch files.
    pub(crate) dir: &'a Path,
    pub(crate) logs: bool,
}

pub(crate) fn nginx(params: &Params<'_>) -> String {
    let (dir, origin) = (params.dir.display(), params.origin);
    let Ports { h1, h2c, tls } = params.ports;
    let log = match params.logs {
        true => format!("{dir}/nginx-access.log combined buffer=64k flush=1s"),
        false => "off".to_owned(),
    };
    let fields = |module: &str| {
        format!(
            "        {module}_set_header Host $http_host;
        {module}_set_header X-Forwarded-For $remote_addr;
        {module}_set_header X-Forwarded-Proto $scheme;
        {module}_set_header X-Forwarded-Host $http_host;
        {module}_set_header X-Request-Id $request_id;
        {module}_set_header Via \"1.1 nginx\";
"
        )
    };
    let (proxy, grpc) = (fields("proxy"), fields("grpc"));
    format!(
        "daemon off;
user root;
worker_processes 1;
error_log stderr crit;
pid {dir}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log {log};
    client_body_temp_path {dir}/nginx-client;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    upstream origin {{
        server {origin};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    upstream grpc_origin {{
        server {origin};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{h1} backlog=4096;
        listen 127.0.0.1:{h2c} http2 backlog=4096;
        listen 127.0.0.1:{tls} ssl http2 backlog=4096;
        ssl_certificate {dir}/cert.pem;
        ssl_certificate_key {dir}/key.pem;
        proxy_http_version 1.1;
        proxy_buffers 8 32k;
        proxy_max_temp_file_size 0;
        proxy_read_timeout 300s;
        add_header Via \"1.1 nginx\" always;
        add_header X-Request-Id $request_id always;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Upgrade $http_upgrade;
{proxy}        location / {{ proxy_pass http://origin; }}
{grpc}        location /bench. {{ grpc_pass grpc://grpc_origin; }}
    }}
}}
"
    )
}

pub(crate) fn haproxy(params: &Params<'_>) -> String {
    let (dir, origin) = (params.dir.display(), params.origin);
    let Ports { h1, h2c, tls } = params.ports;
    let (target, log) = match params.logs {
        true => (
            "    log stdout format raw local0\n",
            "    log global\n    option httplog\n",
        ),
        false => ("", ""),
    };
    format!(
        "global
    nbthread 1
    maxconn 4096
    ssl-default-bind-options ssl-min-ver TLSv1.2
{target}defaults
    mode http
{log}    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout tunnel 300s
    http-reuse always
    unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
    unique-id-header X-Request-Id
frontend web
    bind 127.0.0.1:{h1} backlog 4096
    bind 127.0.0.1:{h2c} proto h2 backlog 4096
    bind 127.0.0.1:{tls} ssl crt {dir}/both.pem alpn h2,http/1.1 backlog 4096
    option forwardfor
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request add-header Via \"1.1 haproxy\"
    http-response add-header Via \"1.1 haproxy\"
    http-response set-header X-Request-Id %[unique-id]
    use_backend grpc if {{ path_beg /bench. }}
    default_backend origin
backend origin
    server origin {origin}
backend grpc
    server origin {origin} proto h2
"
    )
}

pub(crate) fn envoy(params: &Params<'_>) -> String {
    let dir = params.dir.display();
    let (host, port) = (params.origin.ip(), params.origin.port());
    let Ports { h1, h2c, tls } = params.ports;
    let log = match params.logs {
        true => format!(
            "
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {dir}/envoy-access.log"
        ),
        false => String::new(),
    };
    let listener = |name: &str, port: u16, secure: bool| {
        let transport = match secure {
            true => format!(
                "
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{filename: {dir}/cert.pem}}
              private_key: {{filename: {dir}/key.pem}}"
            ),
            false => String::new(),
        };
        format!(
            "  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          codec_type: AUTO
          use_remote_address: true
          always_set_request_id_in_response: true
          via: envoy
          upgrade_configs: [{{upgrade_type: websocket}}]{log}
          route_config:
            request_headers_to_add:
            - {{header: {{key: x-forwarded-host, value: \"%REQ(:AUTHORITY)%\"}}}}
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{prefix: /bench.}}
                route: {{cluster: grpc, timeout: 0s}}
              - match: {{prefix: /}}
                route: {{cluster: origin, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router{transport}
"
        )
    };
    let cluster = |name: &str, protocol: &str| {
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 16384, max_pending_requests: 16384, max_requests: 16384}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}: {{}}}}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}]}}]
"
        )
    };
    format!(
        "static_resources:
  listeners:
{}{}{}  clusters:
{}{}",
        listener("h1", h1, false),
        listener("h2c", h2c, false),
        listener("tls", tls, true),
        cluster("origin", "http_protocol_options"),
        cluster("grpc", "http2_protocol_options"),
    )
}

pub(crate) fn caddy(params: &Params<'_>) -> String {
    let (dir, origin) = (params.dir.display(), params.origin);
    let Ports { h1, h2c, tls } = params.ports;
    let log = match params.logs {
        true => format!("    log {{\n        output file {dir}/caddy-access.log\n    }}\n"),
        false => String::new(),
    };
    let site = |address: String, extra: &str| {
        format!(
            "{address} {{
    bind 127.0.0.1
{extra}{log}    request_header X-Request-Id {{http.request.uuid}}
    header X-Request-Id {{http.request.uuid}}
    @grpc path /bench.*
    reverse_proxy @grpc h2c://{origin}
    reverse_proxy {origin} {{
        transport http {{
            keepalive 300s
            keepalive_idle_conns 1024
            keepalive_idle_conns_per_host 1024
        }}
    }}
}}
"
        )
    };
    let certificate = format!("    tls {dir}/cert.pem {dir}/key.pem\n");
    format!(
        "{{
    admin off
    auto_https off
    persist_config off
    storage file_system {dir}/caddy
    servers {{
        protocols h1 h2 h2c
    }}
}}
{}{}{}",
        site(format!("http://:{h1}"), ""),
        site(format!("http://:{h2c}"), ""),
        site(format!("https://:{tls}"), &certificate),
    )
}

pub(crate) fn traefik(params: &Params<'_>) -> (String, String) {
    let (dir, origin) = (params.dir.display(), params.origin);
    let Ports { h1, h2c, tls } = params.ports;
    let log = match params.logs {
        true => format!("accessLog:\n  filePath: {dir}/traefik-access.log\n  bufferingSize: 100\n"),
        false => String::new(),
    };
    let static_config = format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
{log}entryPoints:
  h1: {{address: \"127.0.0.1:{h1}\"}}
  h2c: {{address: \"127.0.0.1:{h2c}\"}}
  tls: {{address: \"127.0.0.1:{tls}\"}}
serversTransport: {{maxIdleConnsPerHost: 1024}}
providers: {{file: {{filename: \"{dir}/traefik-routes.yaml\", watch: false}}}}
"
    );
    let routes = format!(
        "http:
  routers:
    web: {{entryPoints: [h1, h2c], rule: \"PathPrefix(`/`)\", service: origin}}
    grpc: {{entryPoints: [h1, h2c], rule: \"PathPrefix(`/bench.`)\", service: grpc}}
    webTls: {{entryPoints: [tls], rule: \"PathPrefix(`/`)\", service: origin, tls: {{}}}}
    grpcTls: {{entryPoints: [tls], rule: \"PathPrefix(`/bench.`)\", service: grpc, tls: {{}}}}
  services:
    origin: {{loadBalancer: {{servers: [{{url: \"http://{origin}\"}}]}}}}
    grpc: {{loadBalancer: {{servers: [{{url: \"h2c://{origin}\"}}]}}}}
tls:
  stores: {{default: {{defaultCertificate: {{certFile: {dir}/cert.pem, keyFile: {dir}/key.pem}}}}}}
"
    );
    (static_config, routes)
}
