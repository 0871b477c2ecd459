//! The payload of Sparkplug B: protocol buffers, as far as values need them.
//!
//! Guarantees: fields that are not known are passed over; whatever bytes come, the answer is a payload or an error; a value is
//! what its datatype says, from whichever field and width the sender put it into. Deliberately absent: data sets, templates and
//! bytes, which are no samples.

/// A payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payload {
    /// Milliseconds since 1970.
    pub timestamp: Option<u64>,
    /// Its metrics.
    pub metrics: Vec<Metric>,
    /// Its place among the node's messages, modulo 256.
    pub seq: Option<u64>,
}

/// One metric of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// Its name; data may have the alias alone.
    pub name: Option<String>,
    /// What its birth calls it for short.
    pub alias: Option<u64>,
    /// Milliseconds since 1970.
    pub timestamp: Option<u64>,
    /// Its datatype; data may omit it.
    pub datatype: Option<u32>,
    /// It was kept back and is no current value.
    pub is_historical: bool,
    /// It has no value.
    pub is_null: bool,
    /// Its value.
    pub value: Option<Raw>,
    /// The property `Quality`.
    pub quality: Option<u64>,
}

/// A value as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// `int_value` or `long_value`: bits that mean what the datatype says.
    Bits(u64),
    /// `float_value`
    Float(f32),
    /// `double_value`
    Double(f64),
    /// `boolean_value`
    Boolean(bool),
    /// `string_value`
    Text(String),
    /// What is no sample.
    Other,
}

/// Datatypes that a value depends on.
mod datatype {
    pub const INT8: u32 = 1;
    pub const INT16: u32 = 2;
    pub const INT32: u32 = 3;
    pub const INT64: u32 = 4;
    pub const UINT8: u32 = 5;
    pub const UINT16: u32 = 6;
    pub const UINT32: u32 = 7;
    pub const FLOAT: u32 = 9;
    pub const DOUBLE: u32 = 10;
    pub const BOOLEAN: u32 = 11;
}
/// The datatype of a flag.
pub const BOOLEAN: u32 = datatype::BOOLEAN;
/// The datatype of a double.
pub const DOUBLE: u32 = datatype::DOUBLE;
/// The datatype of a count of 64 bits.
pub const UINT64: u32 = 8;

impl Raw {
    /// The number it is, as a value of `datatype`; NaN where it is none.
    ///
    /// Integers travel in unsigned fields. Senders put negative ones in at the width of the type, of the field, or of the
    /// field's wire form; all are the same after the type's own bits are taken.
    pub fn value(&self, datatype: Option<u32>) -> f64 {
        let value = match (self, datatype) {
            (Raw::Bits(bits), Some(datatype::INT8)) => f64::from(*bits as i8),
            (Raw::Bits(bits), Some(datatype::INT16)) => f64::from(*bits as i16),
            (Raw::Bits(bits), Some(datatype::INT32)) => f64::from(*bits as i32),
            (Raw::Bits(bits), Some(datatype::INT64)) => *bits as i64 as f64,
            (Raw::Bits(bits), Some(datatype::UINT8)) => f64::from(*bits as u8),
            (Raw::Bits(bits), Some(datatype::UINT16)) => f64::from(*bits as u16),
            (Raw::Bits(bits), Some(datatype::UINT32)) => f64::from(*bits as u32),
            (Raw::Bits(bits), Some(datatype::BOOLEAN)) => f64::from(u8::from(*bits != 0)),
            (Raw::Bits(bits), Some(datatype::FLOAT)) => f64::from(f32::from_bits(*bits as u32)),
            (Raw::Bits(bits), Some(datatype::DOUBLE)) => f64::from_bits(*bits),
            (Raw::Bits(bits), _) => *bits as f64,
            (Raw::Float(value), _) => f64::from(*value),
            (Raw::Double(value), _) => *value,
            (Raw::Boolean(state), _) => f64::from(u8::from(*state)),
            (Raw::Text(text), _) => text.trim().parse().unwrap_or(f64::NAN),
            (Raw::Other, _) => f64::NAN,
        };
        if value.is_finite() { value } else { f64::NAN }
    }
}

/// Bytes that are no payload of Sparkplug B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no Sparkplug B: {0}")]
pub struct NotSparkplug(&'static str);

const SHORT: NotSparkplug = NotSparkplug("a field ends too early");

/// A field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(self) -> Result<u64, NotSparkplug> {
        match self {
            Field::Number(number) => Ok(number),
            Field::Bytes(_) => Err(NotSparkplug("bytes in place of a number")),
        }
    }

    fn bytes(self) -> Result<&'a [u8], NotSparkplug> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            Field::Number(_) => Err(NotSparkplug("a number in place of bytes")),
        }
    }

    fn text(self) -> Result<String, NotSparkplug> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, NotSparkplug> {
    let mut number = 0u64;
    for at in 0..10 {
        let (first, rest) = bytes.split_first().ok_or(SHORT)?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << (7 * at).min(63);
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(NotSparkplug("a number of more than ten bytes"))
}

fn cut<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], NotSparkplug> {
    let length = usize::try_from(length).map_err(|_| SHORT)?;
    let (head, rest) = bytes.split_at_checked(length).ok_or(SHORT)?;
    *bytes = rest;
    Ok(head)
}

fn little(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Tells every field of a message with its number.
fn fields<'a>(
    mut bytes: &'a [u8],
    mut tell: impl FnMut(u64, Field<'a>) -> Result<(), NotSparkplug>,
) -> Result<(), NotSparkplug> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Number(little(cut(&mut bytes, 8)?)),
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(cut(&mut bytes, length)?)
            }
            5 => Field::Number(little(cut(&mut bytes, 4)?)),
            _ => return Err(NotSparkplug("a field of a kind that is not used")),
        };
        tell(key >> 3, field)?;
    }
    Ok(())
}

/// Reads a payload.
pub fn read(bytes: &[u8]) -> Result<Payload, NotSparkplug> {
    let mut payload = Payload::default();
    fields(bytes, |number, field| {
        match number {
            1 => payload.timestamp = Some(field.number()?),
            2 => payload.metrics.push(metric(field.bytes()?)?),
            3 => payload.seq = Some(field.number()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(payload)
}

fn metric(bytes: &[u8]) -> Result<Metric, NotSparkplug> {
    let mut metric = Metric::default();
    fields(bytes, |number, field| {
        match number {
            1 => metric.name = Some(field.text()?),
            2 => metric.alias = Some(field.number()?),
            3 => metric.timestamp = Some(field.number()?),
            4 => metric.datatype = Some(field.number()? as u32),
            5 => metric.is_historical = field.number()? != 0,
            7 => metric.is_null = field.number()? != 0,
            9 => metric.quality = quality(field.bytes()?)?,
            10 | 11 => metric.value = Some(Raw::Bits(field.number()?)),
            12 => metric.value = Some(Raw::Float(f32::from_bits(field.number()? as u32))),
            13 => metric.value = Some(Raw::Double(f64::from_bits(field.number()?))),
            14 => metric.value = Some(Raw::Boolean(field.number()? != 0)),
            15 => metric.value = Some(Raw::Text(field.text()?)),
            16..=19 => metric.value = Some(Raw::Other),
            _ => {}
        }
        Ok(())
    })?;
    Ok(metric)
}

/// The property `Quality` of a set of properties.
fn quality(bytes: &[u8]) -> Result<Option<u64>, NotSparkplug> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    fields(bytes, |number, field| {
        match number {
            1 => keys.push(field.bytes()?),
            2 => values.push(field.bytes()?),
            _ => {}
        }
        Ok(())
    })?;
    let Some(at) = keys.iter().position(|key| *key == b"Quality") else {
        return Ok(None);
    };
    let mut found = None;
    fields(
        values.get(at).copied().unwrap_or_default(),
        |number, field| {
            if matches!(number, 3 | 4) {
                found = Some(field.number()?);
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Writes a payload.
pub fn write(payload: &Payload) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(timestamp) = payload.timestamp {
        put_number(&mut bytes, 1, timestamp);
    }
    for metric in &payload.metrics {
        put_bytes(&mut bytes, 2, &write_metric(metric));
    }
    if let Some(seq) = payload.seq {
        put_number(&mut bytes, 3, seq);
    }
    bytes
}

fn write_metric(metric: &Metric) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(name) = &metric.name {
        put_bytes(&mut bytes, 1, name.as_bytes());
    }
    let numbers = [
        (2, metric.alias),
        (3, metric.timestamp),
        (4, metric.datatype.map(u64::from)),
        (5, metric.is_historical.then_some(1)),
        (7, metric.is_null.then_some(1)),
    ];
    for (number, value) in numbers {
        if let Some(value) = value {
            put_number(&mut bytes, number, value);
        }
    }
    if let Some(quality) = metric.quality {
        let mut value = Vec::new();
        put_number(&mut value, 1, 3);
        put_number(&mut value, 3, quality);
        let mut set = Vec::new();
        put_bytes(&mut set, 1, b"Quality");
        put_bytes(&mut set, 2, &value);
        put_bytes(&mut bytes, 9, &set);
    }
    match &metric.value {
        Some(Raw::Bits(bits)) => {
            let is_long = matches!(metric.datatype, Some(datatype::INT64 | UINT64 | 13));
            put_number(&mut bytes, if is_long { 11 } else { 10 }, *bits);
        }
        Some(Raw::Float(value)) => {
            put_varint(&mut bytes, (12 << 3) | 5);
            bytes.extend(value.to_le_bytes());
        }
        Some(Raw::Double(value)) => {
            put_varint(&mut bytes, (13 << 3) | 1);
            bytes.extend(value.to_le_bytes());
        }
        Some(Raw::Boolean(state)) => put_number(&mut bytes, 14, u64::from(*state)),
        Some(Raw::Text(text)) => put_bytes(&mut bytes, 15, text.as_bytes()),
        Some(Raw::Other) | None => {}
    }
    bytes
}

fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_number(into: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(into, field << 3);
    put_varint(into, number);
}

fn put_bytes(into: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(into, (field << 3) | 2);
    put_varint(into, bytes.len() as u64);
    into.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M13
    #[test]
    fn m13_every_integer_type_at_its_limits_however_it_was_put_into_its_field() {
        for (datatype, bits, expected) in [
            (1, 0xff, -1.0),
            (1, 0xffff_ffff, -1.0),
            (1, u64::MAX, -1.0),
            (1, 0x80, -128.0),
            (1, 127, 127.0),
            (2, 0xffff, -1.0),
            (2, 0xffff_8000, -32_768.0),
            (2, 32_767, 32_767.0),
            (3, 0xffff_ffff, -1.0),
            (3, u64::MAX, -1.0),
            (3, 0x8000_0000, -2_147_483_648.0),
            (3, 0x7fff_ffff, 2_147_483_647.0),
            (4, u64::MAX, -1.0),
            (4, 1 << 63, -9_223_372_036_854_775_808.0),
            (4, i64::MAX as u64, 9_223_372_036_854_775_807.0),
            (5, 255, 255.0),
            (5, 0xffff_ffff, 255.0),
            (6, 65_535, 65_535.0),
            (7, 0xffff_ffff, 4_294_967_295.0),
            (7, u64::MAX, 4_294_967_295.0),
            (8, u64::MAX, 18_446_744_073_709_551_615.0),
            (11, 1, 1.0),
            (13, 1_700_000_000_000, 1_700_000_000_000.0),
        ] {
            let found = Raw::Bits(bits).value(Some(datatype));
            assert_eq!(found, expected, "type {datatype}, {bits:#x}");
        }
        assert_eq!(Raw::Float(1.5).value(Some(9)), 1.5);
        assert_eq!(Raw::Double(-2.5).value(Some(10)), -2.5);
        assert_eq!(Raw::Boolean(true).value(Some(11)), 1.0);
        for missing in [
            Raw::Float(f32::NAN),
            Raw::Double(f64::INFINITY),
            Raw::Text("closed".into()),
            Raw::Other,
        ] {
            assert!(missing.value(None).is_nan(), "{missing:?}");
        }
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let payload = Payload {
            timestamp: Some(1_700_000_000_000),
            seq: Some(255),
            metrics: vec![
                Metric {
                    name: Some("Motor/Amps".into()),
                    alias: Some(300),
                    timestamp: Some(1_700_000_000_001),
                    datatype: Some(10),
                    is_historical: true,
                    value: Some(Raw::Double(-1.25)),
                    quality: Some(192),
                    ..Metric::default()
                },
                Metric {
                    alias: Some(0),
                    datatype: Some(4),
                    value: Some(Raw::Bits(u64::MAX)),
                    ..Metric::default()
                },
                Metric {
                    name: Some("gone".into()),
                    is_null: true,
                    ..Metric::default()
                },
            ],
        };
        let bytes = write(&payload);
        assert_eq!(read(&bytes).unwrap(), payload);
        // By the definition of the format: field 1 and 3 as varints.
        let head = Payload {
            timestamp: Some(150),
            seq: Some(2),
            ..Payload::default()
        };
        assert_eq!(write(&head), [0x08, 0x96, 0x01, 0x18, 0x02]);
        // Fields that are not known (uuid, body, a later one) are passed over.
        let mut more = bytes.clone();
        more.extend(b"\x22\x01u\x2a\x02bb\xfa\x01\x00");
        assert_eq!(read(&more).unwrap(), payload);
    }

    #[test]
    fn bytes_that_are_none_are_refused_and_never_a_panic() {
        for bytes in [
            &b"21.5"[..],
            b"\x12\x05ab",
            b"\x08",
            b"\x0b\x01",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        let mut seed = 7u32;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..20)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let _ = read(&bytes);
            let _ = metric(&bytes);
            let _ = quality(&bytes);
        }
    }
}
