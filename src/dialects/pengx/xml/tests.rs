use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Node {
    Node::text(text)
}

#[test]
fn documents_mean_what_django_made_of_them() {
    let a = |node: Node| Node::map([("a", node)]);
    for (document, node) in [
        ("<vm><a>x</a></vm>", a(text("x"))),
        ("<anything id='7'><a b=\"c\">x</a></anything>", a(text("x"))),
        (" \n<vm>\n  <a> x </a>\n</vm>\n", a(text("x"))),
        ("<vm><a/></vm>", a(Node::None)),
        ("<vm><a></a></vm>", a(Node::None)),
        ("<vm><a>  </a></vm>", a(Node::None)),
        ("<vm><a>1</a><a>2</a></vm>", a(text("2"))),
        ("<vm><a>x<!-- c -->y<?pi z?></a></vm>", a(text("xy"))),
        ("<vm><a><![CDATA[<x>&amp;]]></a></vm>", a(text("<x>&amp;"))),
        ("<vm><a>&lt;&gt;&amp;&quot;&apos;&#65;&#x42;</a></vm>", a(text("<>&\"'AB"))),
        ("<vm>dropped<a>x</a>too</vm>", a(text("x"))),
        ("<vm><a><list-item>0</list-item><list-item>1</list-item></a></vm>", a(Node::List(vec![text("0"), text("1")]))),
        ("<vm><a><list-item>0</list-item><b>1</b></a></vm>", a(Node::List(vec![text("0"), text("1")]))),
        (
            "<vm><a><b>0</b><list-item>1</list-item></a></vm>",
            a(Node::map([("b", text("0")), ("list-item", text("1"))])),
        ),
        ("<vm><a>\n</a></vm>", a(Node::None)),
        ("<vm>bare</vm>", text("bare")),
        ("<vm/>", Node::None),
        ("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!DOCTYPE vm>\n<vm/>", Node::None),
        ("<?xml version='1.1'?><vm/>", Node::None),
        ("<vm><가>x</가></vm>", Node::map([("가", text("x"))])),
        ("<vm xmlns:p='urn:x'><p:a>x</p:a><a>y</a></vm>", Node::map([("a", text("y")), ("{urn:x}a", text("x"))])),
        (
            "<vm><b xmlns='urn:x'><a/></b><a>y</a></vm>",
            Node::map([("a", text("y")), ("{urn:x}b", Node::map([("{urn:x}a", Node::None)]))]),
        ),
        ("<vm xml:lang='ko' a='&lt;&#65;>'/>", Node::None),
    ] {
        assert_eq!(parse(document), Ok(node), "{document}");
    }
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for document in [
        "",
        "   ",
        "text",
        "<",
        "<vm",
        "<vm>",
        "<vm><a></vm>",
        "</vm>",
        "<vm></vm",
        "<vm/><vm/>",
        "<vm/>x",
        "x<vm/>",
        "<vm/>&lt;",
        "<vm/><![CDATA[x]]>",
        "<vm>&</vm>",
        "<vm>& x</vm>",
        "<vm>&nbsp;</vm>",
        "<vm>&#1;</vm>",
        "<vm>&#0;</vm>",
        "<vm>&#xD800;</vm>",
        "<vm>&#xFFFF;</vm>",
        "<vm>\u{1}</vm>",
        "<vm>\u{0}</vm>",
        "<vm>\u{FFFE}</vm>",
        "<vm a='1' a='2'/>",
        "<vm a/>",
        "<vm a=1/>",
        "<vm a='1'b='2'/>",
        "<vm a='<'/>",
        "<vm a='&nbsp;'/>",
        "<vm a='&'/>",
        "<vm 1a='x'/>",
        "<1vm/>",
        "<p:a/>",
        "<vm p:a='1'/>",
        "<vm xmlns:p=''/>",
        "<a:b:c xmlns:a='u'/>",
        "<:a/>",
        "<a:/>",
        " <?xml version='1.0'?><vm/>",
        "<vm><?xml version='1.0'?></vm>",
        "<?xml?><vm/>",
        "<vm>]]></vm>",
        "<vm><!-- -- --></vm>",
        "<vm><a<b></vm>",
        "<!-- only -->",
        "<vm><?XML x?></vm>",
        "< vm/>",
        "<vm/><",
    ] {
        assert!(parse(document).is_err(), "{document:?} gave {:?}", parse(document));
    }
}

#[test]
fn doctypes_that_say_more_than_a_name_are_refused() {
    for document in [
        "<!DOCTYPE vm [<!ENTITY a 'b'>]><vm>&a;</vm>",
        "<!DOCTYPE vm []><vm/>",
        "<!DOCTYPE vm SYSTEM 'file:///etc/passwd'><vm/>",
        "<!DOCTYPE vm PUBLIC 'a' 'b'><vm/>",
        "<!DOCTYPE vm><!DOCTYPE vm><vm/>",
        "<vm/><!DOCTYPE vm>",
        "<vm><!DOCTYPE vm></vm>",
        "<!DOCTYPE><vm/>",
    ] {
        assert!(parse(document).is_err(), "{document}");
    }
}

#[test]
fn limits_are_exact() {
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(parse(&nested(MAX_DEPTH + 1)).unwrap_err().contains("nested"));
    let wide = |n: usize| format!("<vm>{}</vm>", "<a/>".repeat(n - 1));
    assert!(parse(&wide(MAX_ELEMENTS)).is_ok());
    assert!(parse(&wide(MAX_ELEMENTS + 1)).unwrap_err().contains("10000 elements"));
    let attributed = |n: usize| format!("<vm {}/>", (0..n).map(|i| format!("a{i}='' ")).collect::<String>());
    assert!(parse(&attributed(MAX_ATTRIBUTES)).is_ok());
    assert!(parse(&attributed(MAX_ATTRIBUTES + 1)).unwrap_err().contains("attributes"));
}

fn rendered(node: &Node, out: &mut String) {
    match node {
        Node::None => {}
        Node::Text(text) => {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "&#13;");
            out.push_str(&text);
        }
        Node::List(items) => items.iter().for_each(|item| wrapped("list-item", item, out)),
        Node::Map(entries) => entries.iter().for_each(|(key, item)| wrapped(key, item, out)),
    }
}

fn wrapped(key: &str, node: &Node, out: &mut String) {
    out.push_str(&format!("<{key}>"));
    rendered(node, out);
    out.push_str(&format!("</{key}>"));
}

fn any_node() -> impl Strategy<Value = Node> {
    let leaf =
        any::<String>().prop_map(|text| Node::text(&text.chars().filter(|c| is_xml_char(*c)).collect::<String>()));
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..6).prop_map(Node::List),
            prop::collection::btree_map("[a-z_가][a-z0-9._-]{0,8}", inner, 1..6).prop_map(Node::Map),
        ]
    })
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(text) = crate::dialects::pengx::charset::decode(&bytes, None) {
            parse(&text).ok();
        }
    }

    #[test]
    fn never_panics_on_markup(pieces in prop::collection::vec(prop::sample::select(vec![
        "<", ">", "/", "</", "/>", "<a", "a", " ", "=", "'", "\"", "&", ";", "&#", "x", "1", "<!", "--", "<!--", "-->", "[", "]",
        "<![CDATA[", "]]>", "<?", "?>", "<?xml", "<!DOCTYPE", ":", "xmlns", "list-item", "\u{0}", "가", "\r",
    ]), 0..60)) {
        parse(&pieces.concat()).ok();
    }

    #[test]
    fn a_rendered_tree_parses_back(node in any_node()) {
        let mut document = String::new();
        wrapped("root", &node, &mut document);
        prop_assert_eq!(parse(&document), Ok(node));
    }
}
