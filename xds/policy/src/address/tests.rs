use super::*;
use crate::corpora;

fn class(address: &str) -> AddressClass {
    AddressClass::of(address.parse().unwrap_or_else(|error| panic!("{address}: {error}")))
}

#[test]
fn a_block_begins_and_ends_where_its_registry_says() {
    for (wanted, addresses) in [
        (
            Public,
            &[
                "1.0.0.0",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "168.63.129.15",
                "168.63.129.17",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.0.3.0",
                "192.31.196.1",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "2000::1",
                "2001:200::",
                "2001:db7:ffff::",
                "2001:db9::",
                "2003::",
                "2606:4700:4700::1111",
                "3ffe::1",
                "3fff:1000::",
                "2606:4700::5eff:7f00:1",
            ][..],
        ),
        (
            Private,
            &[
                "10.0.0.0",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
                "fc00::",
                "fdff:ffff::",
            ],
        ),
        (Loopback, &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]),
        (LinkLocal, &["169.254.0.0", "169.254.0.23", "169.254.255.255", "fe80::1", "febf::1"]),
        (
            Metadata,
            &[
                "169.254.169.254",
                "169.254.170.2",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "fd00:42::42",
            ],
        ),
        (
            EmbeddedV4,
            &[
                "::ffff:8.8.8.8",
                "::ffff:127.0.0.1",
                "::127.0.0.1",
                "::2",
                "64:ff9b::8.8.8.8",
                "64:ff9b:1::1",
                "64:ff9b:1:ffff::1",
                "2001::1",
                "2001:0:ffff::",
                "2002::",
                "2002:7f00:1::",
                "2606:4700::5efe:127.0.0.1",
                "2606:4700::200:5efe:10.0.0.1",
            ],
        ),
        (
            Reserved,
            &[
                "0.0.0.0",
                "0.255.255.255",
                "192.0.0.0",
                "192.0.0.255",
                "192.0.2.1",
                "192.88.99.1",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.1",
                "203.0.113.1",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.0",
                "255.255.255.255",
                "::",
                "::1:0:0",
                "64:ff9b:2::",
                "100::1",
                "2001:1::1",
                "2001:1ff::1",
                "2001:db8::1",
                "3fff::1",
                "3fff:fff::1",
                "4000::1",
                "5f00::1",
                "fec0::1",
                "ff02::1",
            ],
        ),
    ] {
        for address in addresses {
            assert_eq!(class(address), wanted, "{address}");
        }
    }
}

#[test]
fn no_row_hides_one_behind_it() {
    let v4 = V4.iter().map(|(network, length, _)| (u128::from(network.to_bits()) << 96, *length)).collect::<Vec<_>>();
    let v6 = V6.iter().map(|(network, length, _)| (network.to_bits(), *length)).collect::<Vec<_>>();
    for rows in [v4, v6] {
        for (i, (later, later_length)) in rows.iter().enumerate() {
            let hidden = rows[..i].iter().any(|(row, length)| length <= later_length && (row ^ later).leading_zeros() >= *length);
            assert!(!hidden, "row {i}");
        }
    }
}

#[test]
fn what_leads_to_an_ipv4_address_is_seen_through() {
    for (text, wanted) in [
        ("::ffff:127.0.0.1", Some("127.0.0.1")),
        ("::127.0.0.1", Some("127.0.0.1")),
        ("64:ff9b::169.254.169.254", Some("169.254.169.254")),
        ("64:ff9b:1::10.0.0.1", Some("10.0.0.1")),
        ("2002:a00:1::ffff", Some("10.0.0.1")),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", Some("10.0.0.1")),
        ("fe80::5efe:10.0.0.1", Some("10.0.0.1")),
        ("2606:4700::1", None),
        ("::1", None),
        ("::", None),
        ("127.0.0.1", None),
    ] {
        assert_eq!(embedded_v4(text.parse().unwrap()).map(|v4| v4.to_string()).as_deref(), wanted, "{text}");
    }
}

#[test]
fn a_prefix_is_private_as_a_whole_or_not() {
    for (text, wanted) in [
        ("10.0.0.0/8", true),
        ("10.20.0.0/16", true),
        ("10.0.0.1/32", true),
        ("172.16.0.0/12", true),
        ("192.168.0.0/16", true),
        ("100.64.0.0/10", true),
        ("fc00::/7", true),
        ("fd00::/8", true),
        ("0.0.0.0/0", false),
        ("10.0.0.0/7", false),
        ("172.16.0.0/11", false),
        ("127.0.0.0/8", false),
        ("169.254.0.0/16", false),
        ("8.8.8.0/24", false),
        ("::/0", false),
        ("fc00::/6", false),
        ("fe80::/10", false),
        ("::ffff:10.0.0.0/104", false),
    ] {
        assert_eq!(is_private(&text.parse().unwrap()), wanted, "{text}");
    }
}

/// The shared corpus: nothing that it would have denied is public, and what it would not is, but for IPv6 that we take more strictly.
#[test]
fn the_corpus_agrees() {
    let Some(text) = corpora::text("ssrf/addresses.jsonl") else { return };
    let (mut judged, mut stricter) = (0, Vec::new());
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["depends_on_config"] == true {
            continue; // its verdict is that of lists which the row's test wrote, or of the listener's port
        }
        let address: IpAddr = row["ip"].as_str().unwrap().parse().unwrap();
        let deny = row["deny_by_default"].as_bool().unwrap();
        judged += 1;
        match (is_public(address), deny) {
            (false, false) => stricter.push(address),
            (public, deny) => assert_ne!(public, deny, "{row}"),
        }
    }
    // Just outside one block, and within a larger one: not unicast (2000::/3) or a protocol's (2001::/23).
    let larger =
        |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.to_bits() >> 125 != 1 || v6.to_bits() >> 105 == 0x2001_0000 >> 9);
    assert!(stricter.iter().all(larger), "{stricter:?}");
    println!("{judged} judged, {} more strictly: {stricter:?}", stricter.len());
    assert!(judged > 90, "{judged}");
}

#[test]
fn prefixes_say_what_classes_say() {
    let (public, special) = (public_prefixes(), special_prefixes());
    let by_prefix =
        |address: IpAddr| public.iter().any(|prefix| prefix.contains(&address)) && !special.iter().any(|prefix| prefix.contains(&address));
    let edges = public.iter().chain(&special).flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
    for address in edges.chain(["8.8.8.8", "168.63.129.16", "2606:4700::1", "4000::1", "::"].map(|text| text.parse().unwrap())) {
        assert_eq!(by_prefix(address), is_public(address), "{address}");
    }
}
