//! Connections upgraded to another protocol.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use crate::http::{Request, send};

pub(crate) fn tunnel(
    request: &Request,
    input: &mut BufReader<TcpStream>,
    output: &mut TcpStream,
) -> io::Result<()> {
    let Some(protocol) = request.header("upgrade") else {
        return send(
            output,
            426,
            "text/plain",
            b"this path requires an Upgrade\n",
        );
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

/// Suffix of the key in the handshake's hash (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A WebSocket (RFC 6455) that echoes each message, responds to pings and closes on request. Each
/// frame is a complete message of at most 65 535 bytes.
pub(crate) fn websocket(
    request: &Request,
    input: &mut impl Read,
    output: &mut TcpStream,
) -> io::Result<()> {
    let Some(key) = request.header("sec-websocket-key") else {
        return send(
            output,
            426,
            "text/plain",
            b"this path requires a WebSocket\n",
        );
    };
    let accept = base64(&sha1(format!("{key}{GUID}").as_bytes()));
    write!(
        output,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    )?;
    loop {
        let (opcode, payload) = frame(input)?;
        let reply = if opcode == PING { PONG } else { opcode };
        let mut message = vec![0x80 | reply];
        match u8::try_from(payload.len()) {
            Ok(short @ 0..=125) => message.push(short),
            _ => {
                message.push(126);
                message.extend(u16::try_from(payload.len()).unwrap_or(0).to_be_bytes());
            }
        }
        message.extend(payload);
        output.write_all(&message)?;
        if opcode == CLOSE {
            return Ok(());
        }
    }
}

/// Reads a client's frame (section 5.2): opcode and unmasked payload.
fn frame(input: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    input.read_exact(&mut head)?;
    let (is_final, is_masked) = (head[0] & 0x80 != 0, head[1] & 0x80 != 0);
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            input.read_exact(&mut length)?;
            usize::from(u16::from_be_bytes(length))
        }
        short => usize::from(short),
    };
    if !is_final || !is_masked || head[1] & 0x7f == 127 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut mask = [0; 4];
    input.read_exact(&mut mask)?;
    let mut payload = vec![0; length];
    input.read_exact(&mut payload)?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((head[0] & 0x0f, payload))
}

/// SHA-1 (FIPS 180-4 section 6.1) for the handshake, which needs no security.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    for block in padded.chunks_exact(64) {
        let mut words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
            .collect();
        for at in 16..80 {
            let word = words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16];
            words.push(word.rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = [mixed, e, constant, *word];
            let next = next.into_iter().fold(a.rotate_left(5), u32::wrapping_add);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, one) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(one);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Base64 (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |all, at| {
            all << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            match at <= chunk.len() {
                true => text.push(char::from(ALPHABET[bits >> (18 - 6 * at) & 63])),
                false => text.push('='),
            }
        }
    }
    text
}
