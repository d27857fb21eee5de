"""flocker-ca, checked with the openssl program."""

import concurrent.futures
import datetime
import os
import re
import stat
import subprocess
import uuid

import pytest

from cli_programs import ok, run

NODE = re.compile(r"^Created ([0-9a-f-]{36})\.crt\. Copy it over to /etc/flocker/node\.crt on your node machine")


def openssl(*arguments):
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def field(path, *options):
    return openssl("x509", "-in", path, "-noout", *options).strip()


def subject(path):
    return field(path, "-subject", "-nameopt", "RFC2253,-dn_rev").removeprefix("subject=")


def extensions(path):
    """Name -> (critical, value), as openssl prints them."""
    text = field(path, "-text", "-certopt", "ext_default")
    text = text.split("X509v3 extensions:")[1].split("Signature Algorithm")[0] if "X509v3 extensions:" in text else ""
    found = {}
    for name, critical, value in re.findall(r"^ {12}X509v3 (.+?): ?(critical)?\s*\n {16}(.+?)\s*$", text, re.M):
        found[name] = (bool(critical), value)
    return found


def cluster_uuid(path):
    return re.search(r"OU=([0-9a-f-]{36})", subject(path)).group(1)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(scope="module")
def rsa(tmp_path_factory):
    """An authority and one certificate of each kind, all as the contract has them by default."""
    d = tmp_path_factory.mktemp("rsa")
    previous = os.umask(0)  # the modes must not depend on the caller's mask
    try:
        ok("flocker-ca", "initialize", "shop", cwd=d)
        rest = [("create-control-certificate", "control.example.org"), ("create-node-certificate",),
                ("create-api-certificate", "jürgen")]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            told = list(pool.map(lambda words: ok("flocker-ca", *words, cwd=d), rest))
        node = NODE.match(told[1]).group(1)
    finally:
        os.umask(previous)
    return d, node


@pytest.fixture
def ec(tmp_path):
    """A quickly made authority."""
    ok("flocker-ca", "initialize", "quick", "--key-type", "ec", cwd=tmp_path)
    return tmp_path


def test_files(rsa):
    d, node = rsa
    names = ["cluster", "control-control.example.org", node, "jürgen"]
    assert sorted(os.listdir(d)) == sorted(f"{n}.{s}" for n in names for s in ("crt", "key"))
    for name in os.listdir(d):
        assert mode(d / name) == 0o600, name


def test_initialize_output(tmp_path):
    out = ok("flocker-ca", "initialize", "--key-type=ec", "shop", cwd=tmp_path)
    assert out == (
        "Created cluster.key and cluster.crt. Please keep cluster.key secret, as anyone who can access it "
        "will be able to control your cluster.\n"
    )


def test_all_are_rsa_4096_sha_256_of_20_years_with_their_keys(rsa):
    d, node = rsa
    serials = set()
    for name in ["cluster", "control-control.example.org", node, "jürgen"]:
        certificate, key = d / f"{name}.crt", d / f"{name}.key"
        text = field(certificate, "-text")
        assert "Version: 3 (0x2)" in text
        assert "Public-Key: (4096 bit)" in text
        assert "Public Key Algorithm: rsaEncryption" in text
        assert text.count("Signature Algorithm: sha256WithRSAEncryption") == 2
        dates = dict(line.split("=") for line in field(certificate, "-dates").splitlines())
        start, end = (
            datetime.datetime.strptime(dates[k], "%b %d %H:%M:%S %Y GMT") for k in ("notBefore", "notAfter")
        )
        assert end - start == datetime.timedelta(days=20 * 365)
        assert abs(datetime.datetime.utcnow() - start) < datetime.timedelta(minutes=5)
        serial = field(certificate, "-serial").removeprefix("serial=")
        assert int(serial, 16).bit_length() == 128
        serials.add(serial)
        assert field(certificate, "-pubkey") == openssl("pkey", "-in", key, "-pubout").strip()
        assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert len(serials) == 4


def test_subjects_have_ou_then_cn(rsa):
    d, node = rsa
    cluster = cluster_uuid(d / "cluster.crt")
    assert uuid.UUID(cluster).version == 4
    assert subject(d / "cluster.crt") == f"OU={cluster},CN=shop"
    assert subject(d / "control-control.example.org.crt") == f"OU={cluster},CN=control-service"
    assert uuid.UUID(node).version == 4
    assert subject(d / f"{node}.crt") == f"OU={cluster},CN=node-{node}"
    assert subject(d / "jürgen.crt") == f"OU={cluster},CN=user-j\\C3\\BCrgen"
    for name in ["control-control.example.org", node, "jürgen"]:
        issuer = field(d / f"{name}.crt", "-issuer", "-nameopt", "RFC2253,-dn_rev").removeprefix("issuer=")
        assert issuer == f"OU={cluster},CN=shop"


def test_authority_extensions(rsa):
    d, _ = rsa
    found = extensions(d / "cluster.crt")
    assert set(found) == {
        "Basic Constraints",
        "Key Usage",
        "Subject Key Identifier",
        "Authority Key Identifier",
    }
    assert found["Basic Constraints"] == (True, "CA:TRUE, pathlen:0")
    assert found["Key Usage"] == (True, "Certificate Sign, CRL Sign")
    assert found["Subject Key Identifier"] == found["Authority Key Identifier"]
    assert found["Subject Key Identifier"][0] is False


def test_leaf_extensions(rsa):
    d, node = rsa
    assert extensions(d / "control-control.example.org.crt") == {
        "Subject Alternative Name": (False, "DNS:control-service, DNS:control.example.org")
    }
    assert extensions(d / f"{node}.crt") == {}
    assert extensions(d / "jürgen.crt") == {"Extended Key Usage": (False, "TLS Web Client Authentication")}


def test_chain(rsa):
    d, node = rsa
    ca = d / "cluster.crt"
    openssl("verify", "-x509_strict", "-CAfile", ca, ca)
    openssl("verify", "-CAfile", ca, "-purpose", "sslclient", d / f"{node}.crt")
    openssl("verify", "-CAfile", ca, "-purpose", "sslclient", d / "jürgen.crt")
    control = d / "control-control.example.org.crt"
    for host in ["control-service", "control.example.org"]:
        openssl("verify", "-CAfile", ca, "-purpose", "sslserver", "-verify_hostname", host, control)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", ca, "-verify_hostname", "other.example.org", control)
    with pytest.raises(subprocess.CalledProcessError):  # a user cannot pose as a server
        openssl("verify", "-CAfile", ca, "-purpose", "sslserver", d / "jürgen.crt")


def test_another_authority_does_not_verify(rsa, ec):
    d, node = rsa
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", ec / "cluster.crt", d / f"{node}.crt")


def test_control_certificate_with_several_names(ec):
    out = ok(
        "flocker-ca", "create-control-certificate", "--key-type=ec",
        "10.1.2.3", "a.example.org", "fe80::1", "a.example.org", "control-service", cwd=ec,
    )  # fmt: skip
    assert out.startswith("Created control-10.1.2.3.crt and control-10.1.2.3.key.\n")
    assert "/etc/flocker" in out and "chmod 0600" in out and "control-service.key" in out
    assert extensions(ec / "control-10.1.2.3.crt")["Subject Alternative Name"][1] == (
        "DNS:control-service, IP Address:10.1.2.3, DNS:a.example.org, IP Address:FE80:0:0:0:0:0:0:1"
    )
    for option, value in [("-verify_ip", "10.1.2.3"), ("-verify_ip", "fe80::1"), ("-verify_hostname", "a.example.org")]:
        openssl("verify", "-CAfile", ec / "cluster.crt", option, value, ec / "control-10.1.2.3.crt")


@pytest.mark.parametrize("host", ["a b", "../x", "-x.", "a..b", "x/y", "ü.example", "a,DNS:b", "", "a" * 64, "999.1.1.1/8"])
def test_bad_host_names_are_refused(ec, host):
    done = run("flocker-ca", "create-control-certificate", "--", host, cwd=ec)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: '{host}' is neither a host name nor an IP address (write international names in their xn-- form)\n"
    )
    assert sorted(os.listdir(ec)) == ["cluster.crt", "cluster.key"]


def test_days_and_ec(ec):
    ok("flocker-ca", "create-api-certificate", "--days", "3", "--key-type", "ec", "short", cwd=ec)
    assert "NIST CURVE: P-256" in field(ec / "short.crt", "-text")
    assert "ecdsa-with-SHA256" in field(ec / "short.crt", "-text")
    openssl("x509", "-in", ec / "short.crt", "-noout", "-checkend", 3 * 86400 - 600)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("x509", "-in", ec / "short.crt", "-noout", "-checkend", 3 * 86400 + 600)
    openssl("verify", "-CAfile", ec / "cluster.crt", ec / "short.crt")
    assert ok("flocker-ca", "create-api-certificate", "--key-type", "ec", "x", cwd=ec) == (
        "Created x.crt. You can now give it to your API enduser so they can access the control service API.\n"
    )


def test_two_nodes_in_one_directory_and_renewal_in_another(ec):
    out = ec / "renewed"
    out.mkdir()
    first, second = (
        NODE.match(ok("flocker-ca", "create-node-certificate", "--key-type=ec", cwd=ec)).group(1) for _ in range(2)
    )
    assert first != second
    again = ok(
        "flocker-ca", "create-node-certificate", "--key-type=ec", "--uuid", first.upper(), "-i", ec, "-o", out, cwd="/"
    )
    assert NODE.match(again).group(1) == first
    assert subject(out / f"{first}.crt") == subject(ec / f"{first}.crt")
    assert field(out / f"{first}.crt", "-serial") != field(ec / f"{first}.crt", "-serial")


@pytest.mark.parametrize(
    "existing, text",
    [("x.key", "Unable to write private key file."), ("x.crt", "Unable to write certificate file.")],
)
def test_nothing_is_overwritten(ec, existing, text):
    (ec / existing).write_text("precious")
    done = run("flocker-ca", "create-api-certificate", "--key-type=ec", "x", cwd=ec)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {text} File exists: ./{existing}\n"
    assert (ec / existing).read_text() == "precious"
    assert sorted(os.listdir(ec)) == sorted(["cluster.crt", "cluster.key", existing])


def test_a_dangling_link_counts_as_existing(ec):
    (ec / "x.crt").symlink_to("/nonexistent/elsewhere")
    done = run("flocker-ca", "create-api-certificate", "--key-type=ec", "x", cwd=ec)
    assert "Unable to write certificate file. File exists" in done.stderr
    assert not (ec / "x.key").exists()


def test_initialize_twice(ec):
    before = (ec / "cluster.key").read_text()
    done = run("flocker-ca", "initialize", "again", cwd=ec)
    assert done.returncode == 1
    assert "Unable to write private key file. File exists" in done.stderr
    assert (ec / "cluster.key").read_text() == before


def test_simultaneous_runs_make_one_consistent_pair(ec):
    """Many at once under one name: one wins; key and certificate belong together."""
    import cli_programs

    program = str(cli_programs.bin_dir() / "flocker-ca")
    started = [
        subprocess.Popen(
            [program, "create-api-certificate", "--key-type=ec", "x"],
            cwd=ec, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(8)
    ]
    assert [p.wait(timeout=30) for p in started].count(0) == 1
    assert field(ec / "x.crt", "-pubkey") == openssl("pkey", "-in", ec / "x.key", "-pubout").strip()
    assert sorted(os.listdir(ec)) == ["cluster.crt", "cluster.key", "x.crt", "x.key"]


def public_key(path):
    return field(path, "-pubkey").splitlines()[:-1]


def test_renewal_keeps_everything_but_the_time(ec):
    ok("flocker-ca", "create-control-certificate", "--key-type=ec", "--days=3", "10.1.2.3", "a.example.org", cwd=ec)
    ok("flocker-ca", "create-api-certificate", "--key-type=ec", "--days=3", "u", cwd=ec)
    node = NODE.match(ok("flocker-ca", "create-node-certificate", "--key-type=ec", "--days=3", cwd=ec)).group(1)
    for name in ("control-10.1.2.3", "u", node):
        path = ec / f"{name}.crt"
        before = (subject(path), extensions(path), public_key(path), field(path, "-issuer"))
        serial, key = field(path, "-serial"), (ec / f"{name}.key").read_bytes()
        said = ok("flocker-ca", "renew", path, cwd=ec)
        assert said.startswith(f"Renewed {path}. Copy it to where")
        assert (subject(path), extensions(path), public_key(path), field(path, "-issuer")) == before
        assert field(path, "-serial") != serial
        assert (ec / f"{name}.key").read_bytes() == key
        assert mode(path) == 0o600
        openssl("x509", "-in", path, "-noout", "-checkend", 7299 * 86400)
        openssl("verify", "-CAfile", ec / "cluster.crt", path)
        # And with a new key, of the same type.
        ok("flocker-ca", "renew", "--new-key", "--days", "9", path, cwd=ec)
        assert (subject(path), extensions(path)) == before[:2]
        assert field(path, "-pubkey") == openssl("pkey", "-in", ec / f"{name}.key", "-pubout").strip()
        assert public_key(path) != before[2]
        assert mode(ec / f"{name}.key") == 0o600
        assert "NIST CURVE: P-256" in field(path, "-text")
        openssl("verify", "-CAfile", ec / "cluster.crt", path)
    assert len(os.listdir(ec)) == 8  # nothing is left over


def test_renewal_of_what_has_expired(ec):
    """Also of the authority itself: what it has signed stays good."""
    ok("flocker-ca", "create-api-certificate", "--key-type=ec", "u", cwd=ec)
    authority = ("-CA", ec / "cluster.crt", "-CAkey", ec / "cluster.key", "-set_serial", "7", "-days", "-1")
    openssl("x509", "-in", ec / "u.crt", "-x509toreq", "-signkey", ec / "u.key", "-out", ec / "u.csr")
    openssl("x509", "-req", "-in", ec / "u.csr", *authority, "-out", ec / "u.crt")
    openssl("x509", "-in", ec / "cluster.crt", *authority, "-out", ec / "short.crt")
    os.replace(ec / "short.crt", ec / "cluster.crt")
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", ec / "cluster.crt", ec / "u.crt")
    done = run("flocker-ca", "renew", "u.crt", cwd=ec)
    assert done.returncode == 1 and "the certificate authority has expired; run flocker-ca renew on it" in done.stderr
    before = (subject(ec / "cluster.crt"), extensions(ec / "cluster.crt"), public_key(ec / "cluster.crt"))
    assert "as cluster.crt" in ok("flocker-ca", "renew", "cluster.crt", cwd=ec)
    assert (subject(ec / "cluster.crt"), extensions(ec / "cluster.crt"), public_key(ec / "cluster.crt")) == before
    ok("flocker-ca", "renew", "u.crt", cwd=ec)
    openssl("verify", "-x509_strict", "-CAfile", ec / "cluster.crt", ec / "cluster.crt")
    openssl("verify", "-CAfile", ec / "cluster.crt", "-purpose", "sslclient", ec / "u.crt")


def test_renewal_refused(ec, rsa):
    d, node = rsa
    before = (d / f"{node}.crt").read_bytes()
    for words, says in (
        (["renew", d / f"{node}.crt"], "was not signed by this cluster's authority"),
        (["renew", "--new-key", "cluster.crt"], "an authority with a new key would be another one"),
        (["renew", "cluster.key"], "name the certificate's file, which ends in .crt"),
        (["renew", "missing.crt"], "Certificate file could not be opened. No such file"),
        (["renew"], "Wrong number of arguments"),
    ):
        done = run("flocker-ca", *words, cwd=ec)
        assert done.returncode == 1 and says in done.stderr, done
    assert (d / f"{node}.crt").read_bytes() == before
    assert sorted(os.listdir(ec)) == ["cluster.crt", "cluster.key"]


def test_missing_output_directory_leaves_nothing(ec):
    done = run("flocker-ca", "create-api-certificate", "--key-type=ec", "-o", "missing", "x", cwd=ec)
    assert done.returncode == 1
    assert done.stderr == "Error: Unable to write private key file. No such file or directory: missing/x.key\n"


def test_a_failure_half_way_leaves_no_half_pair(tmp_path):
    """A full file system: the pair that no longer fits is not there at all."""
    big = tmp_path / "tiny"
    big.mkdir()
    ok("flocker-ca", "initialize", "--key-type=ec", "q", cwd=tmp_path)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=16", "tmpfs", str(big)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        (big / "fill").write_bytes(b"x" * 4096)  # one page is left: the key fits, the certificate does not
        done = run("flocker-ca", "create-api-certificate", "--key-type=ec", "-i", tmp_path, "-o", big, "x")
        assert done.returncode == 1
        assert "Unable to write certificate file. No space left on device" in done.stderr
        assert os.listdir(big) == ["fill"]
    finally:
        subprocess.run(["umount", str(big)], check=True)


def test_missing_authority(tmp_path):
    for command in (["create-node-certificate"], ["create-api-certificate", "u"], ["create-control-certificate", "h"]):
        done = run("flocker-ca", *command, "-i", tmp_path, "-o", tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "Error: Unable to load certificate authority file. Certificate file could not be opened. "
            f"No such file or directory: {tmp_path}/cluster.crt. "
            "Please run `flocker-ca initialize` to generate a new certificate authority.\n"
        )


def test_missing_or_wrong_authority_key(ec, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    ok("flocker-ca", "initialize", "--key-type=ec", "other", cwd=other)
    (other / "cluster.key").rename(other / "foreign.key")
    done = run("flocker-ca", "create-node-certificate", "-i", other, "-o", other)
    assert "Private key file could not be opened. No such file or directory:" in done.stderr
    (other / "cluster.key").write_bytes((ec / "cluster.key").read_bytes())
    done = run("flocker-ca", "create-node-certificate", "-i", other, "-o", other)
    assert done.returncode == 1
    assert "the certificate and the key do not belong together" in done.stderr
    (other / "cluster.key").write_text("not a key")
    done = run("flocker-ca", "create-node-certificate", "-i", other, "-o", other)
    assert "not a private key in PEM form without passphrase" in done.stderr


def test_a_leaf_cannot_sign(ec, tmp_path_factory):
    ok("flocker-ca", "create-api-certificate", "--key-type=ec", "u", cwd=ec)
    d = tmp_path_factory.mktemp("leaf")
    (d / "cluster.crt").write_bytes((ec / "u.crt").read_bytes())
    (d / "cluster.key").write_bytes((ec / "u.key").read_bytes())
    done = run("flocker-ca", "create-node-certificate", cwd=d)
    assert done.returncode == 1
    assert "the certificate is not that of a certificate authority" in done.stderr


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "a\nb"])
def test_bad_user_names_are_refused(ec, name):
    done = run("flocker-ca", "create-api-certificate", name, cwd=ec)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Invalid username: ")
    assert sorted(os.listdir(ec)) == ["cluster.crt", "cluster.key"]


def test_user_name_that_is_not_utf8(ec):
    done = run("flocker-ca", "create-api-certificate", os.fsdecode(b"a\xff"), cwd=ec)
    assert (done.returncode, done.stderr) == (1, "Error: Invalid username: Could not be converted to UTF-8\n")


def test_too_long_a_user_name_is_refused(ec):
    done = run("flocker-ca", "create-api-certificate", "x" * 60, cwd=ec)
    assert done.returncode == 1
    assert "too long for a certificate: at most 64 characters" in done.stderr


def test_show(rsa, ec):
    d, node = rsa
    cluster = cluster_uuid(d / "cluster.crt")
    out = ok("flocker-ca", "show", d / f"{node}.crt")
    fingerprint = field(d / f"{node}.crt", "-fingerprint", "-sha256").split("=")[1]
    assert re.fullmatch(
        "Kind:        node\n"
        f"Identity:    {node}\n"
        f"Cluster:     {cluster}\n"
        r"Valid from:  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" "\n"
        r"Valid until: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" "\n"
        "Key:         RSA, 4096 bits\n"
        f"Fingerprint: SHA256 {fingerprint}\n",
        out,
    )  # fmt: skip
    assert "Kind:        cluster authority\nIdentity:    shop\n" in ok("flocker-ca", "show", d / "cluster.crt")
    assert "Kind:        API user\nIdentity:    jürgen\n" in ok("flocker-ca", "show", d / "jürgen.crt")
    control = ok("flocker-ca", "show", d / "control-control.example.org.crt")
    assert "Kind:        control service\n" in control
    assert "Names:       control-service\n             control.example.org\n" in control
    done = run("flocker-ca", "show", d / "cluster.key")
    assert done.returncode == 1 and "not a certificate in PEM form" in done.stderr
    done = run("flocker-ca", "show", ec / "none.crt")
    assert done.stderr == (
        f"Error: Certificate file could not be opened. No such file or directory: {ec}/none.crt\n"
    )


def test_usage():
    assert ok("flocker-ca").startswith("Usage: flocker-ca <subcommand> [options]\nOptions:\n")
    out = ok("flocker-ca", "create-node-certificate", "--help")
    assert out.startswith("Usage: flocker-ca create-node-certificate [options]\nOptions:\n")
    assert "\nRun flocker-ca <subcommand> --help for command usage and help.\n" in ok("flocker-ca", "--help")
    version = ok("flocker-ca", "--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", version)
    for arguments, message in [
        (["--bogus"], "option --bogus not recognized"),
        (["-x"], "option -x not recognized"),
        (["frobnicate"], "Unknown command: frobnicate"),
        (["initialize"], "Wrong number of arguments: initialize takes exactly one argument, the cluster's name."),
        (["create-node-certificate", "x"], "Wrong number of arguments: create-node-certificate takes no arguments."),
        (["create-node-certificate", "-i"], "option -i requires argument"),
        (["create-node-certificate", "--days=0"], "--days must be a whole number from 1 to 36500, not '0'"),
        (["create-node-certificate", "--key-type", "dsa"], "--key-type must be rsa or ec, not 'dsa'"),
        (["create-node-certificate", "--uuid", "1"], "'1' is not a version 4 UUID"),
    ]:
        done = run("flocker-ca", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Usage: flocker-ca ")
        assert done.stderr.endswith(f"\nERROR: {message}\n")


def test_one_program_with_many_names():
    assert ok("flocker", "ca", "--version") == ok("flocker-ca", "--version") == ok("flocker", "--version")
    boot_id = open("/proc/sys/kernel/random/boot_id", encoding="ascii").read().strip()
    assert ok("flocker-node-era") == ok("flocker", "node-era") == boot_id
    assert "flocker-agent includes the container agent" in ok("flocker-container-agent", "-c", "/etc/flocker/agent.yml")
    assert "flocker-agent serves the Docker plugin's socket" in ok("flocker-docker-plugin", "--rest-api-port=4523")
    listed = ok("flocker", "--help")
    for name in ["flocker-ca", "flocker-node-era", "flocker-docker-plugin"]:
        assert f"\n  {name} " in listed
    done = run("flocker", "nonsense")
    assert done.returncode == 1 and done.stderr.endswith("\nERROR: Unknown command: nonsense\n")
