//! The wire format of Protocol Buffers, read field by field.

/// Bytes that are no message.
#[derive(Debug)]
pub(super) struct Malformed;

pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32,
    Fixed64,
    Sized(&'a [u8]),
}

/// Reads one field: its number and value.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Value<'a>), Malformed> {
    let tag = varint(bytes)?;
    let number = tag >> 3;
    if number == 0 || number > 0x1fff_ffff {
        return Err(Malformed);
    }
    let value = match tag & 7 {
        0 => Value::Varint(varint(bytes)?),
        1 => {
            take(bytes, 8)?;
            Value::Fixed64
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| Malformed)?;
            Value::Sized(take(bytes, length)?)
        }
        5 => {
            take(bytes, 4)?;
            Value::Fixed32
        }
        // Groups, which proto3 does not have.
        _ => return Err(Malformed),
    };
    Ok((number, value))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            // The tenth byte has one bit.
            return if shift == 63 && byte > 1 {
                Err(Malformed)
            } else {
                Ok(value)
            };
        }
    }
    Err(Malformed)
}

/// Seconds and nanoseconds of an encoded `Duration` or `Timestamp`.
pub(super) fn time(mut bytes: &[u8]) -> Result<(i64, i64), Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            (1, Value::Varint(value)) => seconds = value.cast_signed(),
            // The decoder takes the low 32 bits.
            (2, Value::Varint(value)) => {
                nanos = i64::from((value & 0xffff_ffff) as u32 as i32);
            }
            (1 | 2, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}
