/* Certificates. The first byte chooses: d one in DER, as a peer shows it: whom we take it for, and how flocker-ca
 * describes it; p PEM text, as in a file; h a name for a certificate. */
#include "fuzz.h"

#include "cli/ca_x509.h"
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>

static const struct uuid cluster = {{0x5, 1, 1, 1, 1, 1, 0x41, 1, 0x81, 1, 1, 1, 1, 1, 1, 1}};

static struct ca_pair authority, user; /* made once */

/* What is shown to people must not be able to command their terminal. */
static void check_shown(const char *text, size_t n)
{
    RULE(!n || str_is_utf8(text, n));
    for (size_t i = 0; i < n; i++)
        RULE((unsigned char)text[i] >= ' ' ? text[i] != 0x7f : text[i] == '\n');
}

static void describe(const char *pem)
{
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    CLEANUP_ERR struct err *e = ca_describe(pem, to);

    (void)fclose(to);
    RULE(e ? *e->text : n > 0);
    check_shown(text, n);
    free(text);
}

static void identity(const X509 *x)
{
    struct tls_identity id;
    CLEANUP_ERR struct err *e = tls_identity_read(x, &id);

    RULE(!e || *e->text);
    if (e)
        return;
    RULE(*id.name && str_is_utf8(id.name, strlen(id.name)));
    RULE((id.kind == TLS_KIND_NODE) == !uuid_is_nil(&id.node));
    if (id.kind == TLS_KIND_NODE)
        RULE(strcasecmp(id.name + strlen("node-"), UUID_STR(&id.node)) == 0);
    if (id.kind == TLS_KIND_CONTROL_SERVICE)
        RULE(streq(id.name, "control-service"));
}

static void der(const uint8_t *data, size_t size)
{
    X509 *x = d2i_X509(NULL, &data, (long)size);
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes;

    if (x && PEM_write_bio_X509(bio, x) == 1) {
        long n = BIO_get_mem_data(bio, &bytes);
        CLEANUP_FREE char *pem = xstrndup(bytes, (size_t)n);
        identity(x);
        describe(pem);
        CLEANUP_ERR struct err *e = ca_check_user(pem, authority.certificate);
        RULE(!e || *e->text);
    }
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
}

/* What is renewed was ours before, and names the same. */
static void renew(const char *text)
{
    struct ca_authority a;
    struct ca_pair pair = {0};

    RULE(!ca_authority_load(authority.certificate, authority.key, CA_EXPIRED_OK, &a));
    CLEANUP_ERR struct err *e = ca_renew(&a, text, false, 1, &pair);
    RULE(e ? *e->text : !pair.key && ca_is_authority(pair.certificate) == ca_is_authority(text));
    ca_pair_done(&pair);
    ca_authority_done(&a);
    ERR_clear_error();
}

static void pem_text(const char *text)
{
    struct ca_authority a;
    CLEANUP_ERR struct err *e = ca_authority_load(text, authority.key, 0, &a);
    CLEANUP_ERR struct err *e2 = ca_check_user(text, authority.certificate);
    CLEANUP_ERR struct err *e3 = ca_check_user(user.certificate, text);
    struct ca_authority b;
    CLEANUP_ERR struct err *e4 = ca_authority_load(authority.certificate, text, 0, &b);

    RULE((!e || *e->text) && (!e2 || *e2->text) && (!e3 || *e3->text) && (!e4 || *e4->text));
    if (!e)
        ca_authority_done(&a);
    if (!e4)
        ca_authority_done(&b);
    describe(text);
    renew(text);
    ERR_clear_error();
}

static void host(const char *text)
{
    bool is_address;
    CLEANUP_ERR struct err *e = ca_check_host(text, &is_address);

    RULE(e ? *e->text : !strpbrk(text, ", \n") && *text);
}

static void prepare(void)
{
    struct ca_authority a;
    struct ca_request r = {
        .kind = CA_USER, .common_name = "user-bob", .key_type = CA_KEY_EC, .days = CA_DAYS};

    if (authority.key)
        return;
    RULE(!ca_make_authority("c", &cluster, CA_KEY_EC, CA_DAYS, &authority));
    RULE(!ca_authority_load(authority.certificate, authority.key, 0, &a));
    RULE(!ca_issue(&a, &r, &user));
    ca_authority_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return -1;
    prepare();
    CLEANUP_FREE char *text = fuzz_text(data + 1, size - 1);

    switch (data[0]) {
    case 'd':
        der(data + 1, size - 1);
        return 0;
    case 'p':
        pem_text(text);
        return 0;
    case 'h':
        host(text);
        return 0;
    default:
        return -1;
    }
}

/* ---- seeds ---- */

static void add_der(struct str *out, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    unsigned char *bytes = NULL;
    int n = i2d_X509(x, &bytes);

    str_append(out, "d");
    str_append_bytes(out, bytes, (size_t)n);
    OPENSSL_free(bytes);
    X509_free(x);
    BIO_free(bio);
}

bool fuzz_seed(unsigned i, struct str *out)
{
    static const char *const names[] = {"control-service", "node-05010101-0101-4101-8101-010101010101",
                                        "user-\xc3\xa9\x1b[2J"};
    static const enum ca_kind kinds[] = {CA_CONTROL, CA_NODE, CA_USER};
    char *hosts[] = {(char[]){"c.example"}, (char[]){"192.0.2.1"}, (char[]){"2001:db8::1"}};
    struct ca_authority a;
    struct ca_pair pair = {0};

    if (i > 8)
        return false;
    prepare();
    if (i < 3) {
        static const char *const texts[] = {"hc.example", "h192.0.2.1", "hxn--bcher-kva.example"};
        str_append(out, texts[i]);
    } else if (i < 6) {
        struct ca_request r = {.kind = kinds[i - 3],
                               .common_name = names[i - 3],
                               .names = hosts,
                               .n_names = i == 3 ? ARRAY_SIZE(hosts) : 0,
                               .key_type = CA_KEY_EC,
                               .days = CA_DAYS};
        RULE(!ca_authority_load(authority.certificate, authority.key, 0, &a));
        RULE(!ca_issue(&a, &r, &pair));
        add_der(out, pair.certificate);
        ca_pair_done(&pair);
        ca_authority_done(&a);
    } else if (i == 6) {
        add_der(out, authority.certificate);
    } else {
        str_appendf(out, "p%s", i == 7 ? user.certificate : authority.key);
    }
    return true;
}
