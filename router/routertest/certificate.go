package routertest

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
)

// Certificate writes a new self-signed certificate for localhost, with commonName to tell it by, and its key as PEM files into dir. It returns
// the files and the certificate.
func Certificate(t testing.TB, dir, commonName string) (certFile, keyFile string, c *x509.Certificate) {
	t.Helper()
	return certificate(t, dir, commonName, []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)})
}

// CertificateFor is Certificate for another host.
func CertificateFor(t testing.TB, dir, commonName, host string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile, _ = certificate(t, dir, commonName, []string{host}, nil)
	return certFile, keyFile
}

func certificate(t testing.TB, dir, commonName string, names []string, addresses []net.IP) (certFile, keyFile string, c *x509.Certificate) {
	t.Helper()
	a := &Authority{t: t, dir: dir}
	der, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, DNSNames: names, IPAddresses: addresses, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	certFile, keyFile = a.write("tls", der, key)
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, c
}
