mod corpus;
mod lax;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;
use crate::TenantId;

fn pattern(text: &str) -> PathPattern {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn paths_with_one_reading_pass_decoded() {
    for (raw, normal) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/%61dmin", "/admin"),
        ("/a%2Etxt", "/a.txt"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/..c/d..", "/a..b/..c/d.."),
        ("/Inc.", "/Inc."),
        ("/my%20report.pdf", "/my report.pdf"),
        ("/a:b@c,d=e&f!$'()*+", "/a:b@c,d=e&f!$'()*+"),
        ("/a%3Ab%40c", "/a:b@c"),
        ("/a[0]^|", "/a[0]^|"),
        ("/%22%3C%3E%7B%7D%60", "/\"<>{}`"),
        ("/caf%C3%A9", "/café"),
        ("/cafe%CC%81", "/cafe\u{301}"),
        ("/%E6%97%A5%E6%9C%AC", "/日本"),
        ("/%D9%86%D9%85%DB%8C%E2%80%8C%D8%AE%D9%88%D8%A7%D9%87%D9%85", "/نمی\u{200C}خواهم"),
        ("/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB", "/👩\u{200D}💻"),
        ("/bg%20qf", "/bg qf"),
    ] {
        let path = NormalPath::new(raw).unwrap_or_else(|e| panic!("{raw}: {e}"));
        assert_eq!(path.as_str(), normal, "{raw}");
        assert_eq!(matches!(path.0, Cow::Borrowed(_)), !raw.contains('%'), "{raw}: copied for nothing");
    }
}

#[test]
fn paths_with_two_readings_are_refused() {
    let encoded = |c: char| format!("/a{}b", utf8_percent_encode(&c.to_string(), NON_ALPHANUMERIC));
    let cases: &[(&str, &[&str])] = &[
        ("begin with '/'", &["", "*", "a", "a/b", "http://a/b"]),
        ("no empty segment", &["//", "//a", "/a//b", "/a//"]),
        (
            "dots and blanks",
            &[
                "/.",
                "/..",
                "/a/./b",
                "/a/../b",
                "/a/..",
                "/%2e",
                "/%2E%2e/a",
                "/.%2e",
                "/...",
                "/....",
                "/%20",
                "/..%20",
                "/.%20.",
                "/.%E2%80%8D.",
                "/.%EF%B8%8F./a",
            ],
        ),
        ("slash or backslash", &["/a%2fb", "/a%2Fb", "/%2f", "%2Fa", "/a%5cb", "/..%5C.."]),
        ("no backslash", &["/a\\b", "/..\\a", "\\a"]),
        ("path parameters", &["/a;b", "/a;", "/;/a", "/..;/a", "/a;v=1/b", "/a%3Bb"]),
        ("encoded twice", &["/%2561", "/a%25", "/100%25", "/%252e%252e/a", "/%25252f", "/%25u002f", "/..%25c0%25af"]),
        ("'?' or '#'", &["/a%3Fb", "/a%23b"]),
        ("query and fragment", &["/a?b", "/a#b"]),
        ("two hex digits", &["/%", "/%a", "/%zz", "/%u002f", "/%c0%qf", "/%%32%65", "/%-1", "/%+1", "/% 1"]),
        ("control characters", &["/a%00", "/a%0d%0ab", "/a%09", "/a%1f", "/a%7F"]),
        ("UTF-8", &["/%ff", "/%c0%ae%c0%ae/a", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af", "/%f8%80%80%80%af", "/%ed%a0%80", "/%c3", "/%80"]),
        ("percent-encoded", &["/a b", "/a\tb", "/a\0b", "/a\"b", "/<a>", "/{a}", "/`a", "/é", "/．．/a", "/a\u{7f}"]),
        ("ends with a space", &["/admin%20", "/%20a", "/a%20/b"]),
    ];
    for (reason, paths) in cases {
        for raw in *paths {
            let refused = NormalPath::new(raw).expect_err(raw);
            assert!(refused.contains(reason), "{raw}: {refused}");
        }
    }
    // Full-width, small and one-, two-, three-dot forms; solidus and backslash in other blocks; the Greek question mark, which is ';';
    // yen and won, which are '\' in Windows code pages; Kelvin, superscripts and ligatures; blanks, direction marks, private use.
    for c in "／＼．；％？＃ａ０﹨﹒․‥…∕⁄∖⃥\u{37E}¥₩٪\u{212A}²ﬁ\u{A0}\u{3000}\u{AD}\u{200B}\u{202E}\u{2028}\u{FEFF}\u{F025}\u{EFC8}\u{FFFD}\u{85}\u{E0041}".chars() {
        let raw = encoded(c);
        assert!(NormalPath::new(&raw).is_err(), "{raw} ({c:?})");
    }
}

#[test]
fn patterns_match_whole_segments() {
    let acme: TenantId = "acme".parse().unwrap();
    for (text, matched, other) in [
        ("/", &["/"][..], &["/a", "/a/"][..]),
        ("/a", &["/a", "/%61"], &["/", "/a/", "/A", "/ab", "/a/b", "/b"]),
        ("/a/", &["/a/"], &["/a", "/a/b"]),
        ("/a/*", &["/a/x", "/a/**", "/a/x%20y"], &["/a", "/a/", "/a/x/", "/a/x/y", "/b/x"]),
        ("/*/b", &["/a/b"], &["/b", "/a/b/", "/a/c", "/a/a/b"]),
        ("/a/**", &["/a/", "/a/x", "/a/x/", "/a/x/y"], &["/a", "/ab", "/", "/A/x"]),
        ("/**", &["/", "/a", "/a/b/"], &[]),
        (
            "/tenants/{tenant}/**",
            &["/tenants/acme/", "/tenants/acme/x", "/tenants/%61cme/x"],
            &[
                "/tenants/acme",
                "/tenants/acmes/x",
                "/tenants/globex/x",
                "/tenants/ACME/x",
                "/tenants/acme./x",
                "/tenants/{tenant}/x",
                "/tenants/%7Btenant%7D/x",
            ],
        ),
        ("/{tenant}", &["/acme"], &["/", "/globex", "/acme/"]),
        ("/café/日 本", &["/caf%C3%A9/%E6%97%A5%20%E6%9C%AC"], &["/cafe%CC%81/%E6%97%A5%20%E6%9C%AC"]),
        ("/a+b/c:d", &["/a+b/c:d", "/a%2Bb/c%3Ad"], &["/a%20b/c:d"]),
    ] {
        let pattern = pattern(text);
        assert_eq!(pattern.to_string(), text);
        for raw in matched {
            assert!(pattern.matches(&NormalPath::new(raw).unwrap(), Some(&acme)), "{text} should match {raw}");
        }
        // A path in braces is none that a request may have, which is another way not to match.
        for path in other.iter().filter_map(|raw| NormalPath::new(raw).ok()) {
            assert!(!pattern.matches(&path, Some(&acme)), "{text} should not match {path:?}");
        }
    }
    let path = NormalPath::new("/tenants/acme/x").unwrap();
    assert!(!pattern("/tenants/{tenant}/x").matches(&path, None), "nobody is identified");
}

#[test]
fn patterns_are_checked_when_they_are_read() {
    for (text, wanted) in [
        ("", "begin with '/'"),
        ("a", "begin with '/'"),
        ("**", "begin with '/'"),
        ("/a*", "whole segments"),
        ("/*a", "whole segments"),
        ("/a**", "whole segments"),
        ("/***", "whole segments"),
        ("/**/a", "whole segments"),
        ("/**/", "whole segments"),
        ("/**/**", "whole segments"),
        ("/a{tenant}", "{tenant}"),
        ("/{subject}", "{tenant}"),
        ("/{}", "{tenant}"),
        ("/{tenant", "{tenant}"),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("//**", "empty segment"),
        ("/a//**", "empty segment"),
        ("/./a", "dot segments"),
        ("/a/..", "dot segments"),
        ("/../**", "dot segments"),
        ("/%61", "decoded"),
        ("/100%", "decoded"),
        ("/a\\b", "may not have"),
        ("/a;b", "may not have"),
        ("/a?b", "may not have"),
        ("/a#", "may not have"),
        ("/a\tb", "may not have"),
        ("/．．", "may not have"),
        ("/a ", "space"),
    ] {
        let refused = text.parse::<PathPattern>().expect_err(text);
        assert!(refused.contains(wanted), "{text}: {refused}");
    }
}
