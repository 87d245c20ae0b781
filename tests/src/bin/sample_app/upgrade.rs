//! Connections that are switched to another protocol.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use crate::http::{Request, send};

pub(crate) fn tunnel(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
) -> io::Result<()> {
    let Some(protocol) = request.header("upgrade") else {
        return send(output, 426, "text/plain", b"this path wants an Upgrade\n");
    };
    write!(
        output,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
    )?;
    let mut block = [0_u8; 4096];
    loop {
        let n = input.read(&mut block)?;
        if n == 0 {
            return Ok(());
        }
        output.write_all(&block[..n])?;
    }
}
