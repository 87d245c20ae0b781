//! The latency that the proxy adds to a warm request.

use anyhow::{Result, ensure};
use cless_tests::cluster::Cluster;
use cless_tests::engine;
use cless_tests::http_client::Connection;
use cless_tests::report::{Better, Row, print_line};
use cless_tests::stats::{median, millis};
use tokio::time::Instant;

use crate::{IdleService, SOON};

/// Measures the median of a warm request through the proxy, less that of one to the container.
pub(crate) async fn run(cluster: &Cluster, service: &IdleService, requests: usize) -> Result<Row> {
    print_line(&format!(
        "\nwarm_added_ms: {requests} warm requests on each side, alternating"
    ));
    service.cold_request(cluster, 0).await?;
    let containers = cluster.wait_containers(service.service, 1, SOON).await?;
    let address = engine::address(cluster.docker(), &containers[0].id, 8080).await?;
    let mut direct = Connection::open(address).await?;
    let mut proxied = Connection::open(cluster.node(0).listen).await?;
    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for _ in 0..requests {
        for (connection, times) in [(&mut proxied, &mut through), (&mut direct, &mut straight)] {
            let begin = Instant::now();
            let response = connection.get(&service.host, "/").await?;
            times.push(begin.elapsed());
            ensure!(response.status == 200, "{response:?}");
        }
    }
    let (through, straight) = (millis(median(&through)), millis(median(&straight)));
    print_line(&format!(
        "  {through:.3} ms through the proxy, {straight:.3} ms directly"
    ));
    Ok(Row {
        case: "static",
        metric: "warm_added_ms",
        better: Better::Lower,
        ours: through - straight,
        reference: None,
        bar: Some(0.5),
    })
}
